"""What an LDAE is held against, from latents alone: principal components, nearest latents."""
