"""The process: devices, digests, files, progress."""
