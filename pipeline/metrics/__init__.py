"""Numbers from arrays: similarity, error, intervals, distances, ventricle volume."""
