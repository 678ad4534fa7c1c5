"""One thin file for each DVC stage; each is also a command."""
