"""One scan at a time: read, orient, strip, correct, register, resample, scale, judge."""
