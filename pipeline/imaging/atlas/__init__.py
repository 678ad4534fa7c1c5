"""The MNI152 template: brain, tissue maps, and the grid that volumes are brought onto."""
