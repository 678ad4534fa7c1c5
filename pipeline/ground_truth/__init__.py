"""Volumes that a model made, beside what is known to be true."""
