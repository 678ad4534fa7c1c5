"""The cohort: manifest of scans, quarantine list, subject-level split."""
