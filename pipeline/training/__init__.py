"""Lightning modules and what they share: data, EMA, checkpoints, logs."""
