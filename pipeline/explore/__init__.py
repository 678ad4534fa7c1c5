"""A page on which a study is looked at: people as points, brains that move along directions."""
