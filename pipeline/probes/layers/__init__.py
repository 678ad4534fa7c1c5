"""Penalised layers, many fits to the same scans at a time."""
