"""Which scans: manifest, quarantine list, subject-level split."""
