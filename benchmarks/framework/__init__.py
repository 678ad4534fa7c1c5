"""Run rows in fresh processes, compare ways side by side, and write tables."""
