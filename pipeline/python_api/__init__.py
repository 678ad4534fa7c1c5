"""A study from Python, by the names of the commands."""
