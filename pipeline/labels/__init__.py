"""What tables, sidecars and names tell of people and visits."""
