"""Autoencoders made elsewhere: read without running their code, rename, load strictly, prove."""
