"""Processes that share the work: dask, SLURM, a fork server."""
