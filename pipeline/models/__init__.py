"""Trained networks, on disk and in use: autoencoder, latent diffusion model, LDAE."""
