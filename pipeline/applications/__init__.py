"""The trained LDAE at work: reconstruct, vary, generate, manipulate, interpolate."""
