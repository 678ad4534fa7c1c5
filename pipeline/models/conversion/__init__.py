"""Models of other software: read, renamed, loaded strictly, exported."""
