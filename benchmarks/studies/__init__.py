"""Programs that measure one thing at length: `python -m benchmarks.studies.NAME`."""
