"""Networks on disk and in use: autoencoder, latent diffusion, LDAE."""
