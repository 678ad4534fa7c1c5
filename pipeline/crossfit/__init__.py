"""Cross-fitting: y_sem of every scan by a model that never saw its person, in one space."""
