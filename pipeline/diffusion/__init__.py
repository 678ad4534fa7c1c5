"""Diffusion as free functions over model(x, t): schedule, losses, samplers."""
