"""Phantoms: synthetic heads with known age, sex, disease and tissue volumes."""
