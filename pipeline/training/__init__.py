"""Phase 2: train autoencoder, denoiser and semantic encoder from stores, with Lightning."""
