"""Drawing: arrays and tables in, a matplotlib Figure or PNG bytes out."""
