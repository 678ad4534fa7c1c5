"""Encoding: volumes.zarr to latents.zarr, latents.zarr to semantics.zarr, and repair."""
