"""Which scans: ingest, manifest, subject-level split, phantom."""
