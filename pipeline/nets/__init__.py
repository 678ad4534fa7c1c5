"""Networks: autoencoder, denoiser, gradient estimator, semantic encoder."""
