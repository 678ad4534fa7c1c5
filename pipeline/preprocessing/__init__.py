"""Preprocessing: raw heads to volumes.zarr, with quality control and quarantine."""
