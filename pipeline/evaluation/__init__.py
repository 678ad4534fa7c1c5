"""Trained models scored on unseen subjects. Never imports training."""
