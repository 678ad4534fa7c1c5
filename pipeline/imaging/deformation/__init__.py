"""Deformations between brains on one grid, and the change of volume that they tell."""
