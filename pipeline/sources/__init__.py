"""Where scans come from: BIDS, folders, tables, DICOM; each yields one record a scan."""
