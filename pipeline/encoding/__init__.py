"""Phase 1, volumes.zarr to latents.zarr and semantics.zarr: encode, repair, embed."""
