"""Worker processes: dask, SLURM, a fork server."""
