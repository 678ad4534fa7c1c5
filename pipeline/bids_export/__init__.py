"""BIDS-Derivatives of a study: what other tools find without being told."""
