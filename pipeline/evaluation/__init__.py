"""Probes, reconstruction metrics, intervals, figures and the report. Never imports training."""
