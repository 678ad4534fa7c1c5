"""The phantom: synthetic heads of people with known age, sex, disease and volumes."""
