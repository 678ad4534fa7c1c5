"""The phantom cohort: T1-like heads with known anatomy, for demonstration and tests."""
