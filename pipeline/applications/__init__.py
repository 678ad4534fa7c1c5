"""Use a trained LDAE: reconstruct, vary, generate, manipulate, interpolate; NIfTI files out."""
