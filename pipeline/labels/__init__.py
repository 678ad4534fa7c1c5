"""Labels of scans, read from tables, sidecars and names: age, sex, diagnosis, visit."""
