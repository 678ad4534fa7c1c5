"""The report: one HTML page from the files of a study."""
