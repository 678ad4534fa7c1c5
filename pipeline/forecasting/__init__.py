"""Forecasts of held-out last visits, beside plainer ways to foresee them."""
