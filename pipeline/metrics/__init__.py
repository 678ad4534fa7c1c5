"""Numbers from arrays: similarity, error, intervals, distances, tests."""
