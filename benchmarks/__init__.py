"""Measurements: `rows` of the table of targets, longer `studies`, and the `framework` of both."""
