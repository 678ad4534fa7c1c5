"""One thin file a DVC stage; each is also a command."""
