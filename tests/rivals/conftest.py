"""Stored latents of twenty people, and their table."""

import pandas as pd
import pytest

from pipeline.stores.latents import open_latents


@pytest.fixture
def latents(latents_path):
    return open_latents(latents_path)


@pytest.fixture
def scans(split):
    rows = [
        {
            "scan_id": scan,
            "subject_id": scan,
            "split": name,
            "diagnosis": ("CN", "AD")[int(scan[4:]) % 2],
        }
        for name, ids in split.items()
        for scan in ids
    ]
    return pd.DataFrame(rows)
