"""Numbers of scans as measurements: the scanner's part, change over visits, brain age."""
