"""Phase 1 over a whole cohort: preprocess, encode, embed."""
