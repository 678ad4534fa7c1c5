"""Sections of the report as plain values for the template."""
