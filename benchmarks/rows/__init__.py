"""Rows of the table of targets, which `pipeline bench` measures; each module has a list `ROWS`."""
