"""Autoencoders of other software: read, rename, load strictly, export."""
