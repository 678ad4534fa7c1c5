"""Contracts between the stages: parameters, tables, stores, metrics, errors. No I/O, no torch."""
