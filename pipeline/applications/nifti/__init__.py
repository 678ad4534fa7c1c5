"""NIfTI images of what was made of a scan, on the grid of the store or of the scan itself."""
