"""The pipeline as a BIDS-App: a participant level and a group level."""
