"""Learn from T1-weighted brain MRI: precompute once, train from latents."""

__version__ = "0.1.0"
