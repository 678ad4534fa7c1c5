"""People whose scans may shape weights that ship: CC0 and PDDL, never the test list of the card."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.stores.volumes import VolumeRow

FREE = ("CC0", "PDDL", "PDDL 1.0")
"""Licences without conditions on derived weights."""
CARD = Path(__file__).parent / "bundled_ae" / "card.md"
"""Its test people are never trained on."""
UNKNOWN = ("session_id", "age_years", "sex", "diagnosis", "months_from_first")
"""Columns of a manifest that no training needs."""


def free_people(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a study's manifest that may be trained on."""
    held_out = CARD.read_text().split("test subjects of docs/real-data-run.md:")[1].split("\n")[0]
    test = {f"sub-{name.strip(' .').split('_')[0]}" for name in held_out.split(",")}
    return manifest[manifest["licence"].isin(FREE) & ~manifest["subject_id"].isin(test)]


def volume_row(volume: np.ndarray) -> VolumeRow:
    """Return a row of a volume store for a brain without a file of its own."""
    nothing = np.eye(4)
    return VolumeRow(
        volume=volume,
        native_to_mni=nothing,
        native_affine=nothing,
        native_shape=np.array(volume.shape, dtype=np.int32),
        intensity_range=np.array([0.0, 1.0]),
    )
