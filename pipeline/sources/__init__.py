"""Sources of scans: BIDS, folders, tables, DICOM; each yields one record a scan."""
