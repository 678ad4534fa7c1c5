"""Phase 1, raw heads to volumes.zarr: tasks, QC, quarantine."""
