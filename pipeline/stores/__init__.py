"""Zarr stores: create, open, append, verify."""
