"""What a label may be read from instead of the brain: site, scanner, age, sex, covariates."""
