"""Conversion of models: import from other software, export to MONAI."""
