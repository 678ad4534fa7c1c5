"""Labels predicted from frozen features, beside rivals, on unseen subjects."""
