"""People whom the bundled networks were trained on: figures of them flatter these networks.

Known by the sha256 of their image files, which the manifest holds. The networks saw the same 57
people (autoencoder, LDAE and its tissue net), a few of them in validation alone.
"""

from functools import cache
from pathlib import Path

import pandas as pd

from pipeline.runtime.progress import counted
from schemas.params import Params

SEEN = Path(__file__).parents[1] / "weights" / "seen.csv"
"""source_digest of every scan of a person that the bundled networks saw, and its split there."""
JUDGED = ("val", "test")
LDAE_ZOOMS = 3.0
"""Voxel size (mm) of the bundled LDAE."""


@cache
def seen_digests() -> frozenset[str]:
    """Return the digests of the image files that the bundled networks saw."""
    return frozenset(pd.read_csv(SEEN, dtype=str)["source_digest"])


def is_seen(manifest: pd.DataFrame) -> "pd.Series[bool]":
    """Return whether each scan of a manifest is of a person whom the bundled networks saw.

    All scans of a person are, where one is. A copy of a file with other bytes is not recognised.
    """
    digests = manifest.get("source_digest", pd.Series("", index=manifest.index))
    known = digests.isin(seen_digests())
    people = set(manifest.loc[known, "subject_id"])
    return manifest["subject_id"].isin(people)


def seen_by_split(manifest: pd.DataFrame) -> dict[str, int]:
    """Return how many people of each split the bundled networks saw, of splits that have any."""
    people = manifest.loc[is_seen(manifest)].groupby("split")["subject_id"].nunique()
    return {str(split): int(count) for split, count in people.items()}


def warning_of_seen(manifest: pd.DataFrame, *, remedy: bool = True) -> str | None:
    """Return a sentence on people of val and test whom the bundled networks saw, or None."""
    counts = {k: n for k, n in seen_by_split(manifest).items() if k in JUDGED}
    if not counts:
        return None
    where = " and ".join(f"{number} of {split}" for split, number in counts.items())
    total = sum(counts.values())
    told = (
        f"the bundled networks were trained on {counted(total, 'subject')} ({where}): what they"
        " show of these flatters"
    )
    return f"{told}; cohort.split.seen: train keeps them out of judgement" if remedy else told


def takes_bundled_ldae(params: Params) -> bool:
    """Return whether models that are trained start from the bundled LDAE, or count its modes."""
    starts = (params.train_ldm.start_from, params.train_ldae.start_from)
    # By itself (`auto`, modes) it comes in only with latents of its own autoencoder and voxels.
    by_itself = params.train_ldae.encoder.prior_people > 0 or "auto" in starts
    own = params.autoencoder.source == "bundled" and params.preprocess.grid.zooms == LDAE_ZOOMS
    return "bundled" in starts or (own and by_itself)


def warning_of_seen_in_folds(manifest: pd.DataFrame) -> str | None:
    """Return a sentence on people of all splits whom the bundled networks saw, or None.

    Models of folds start from the bundled LDAE, or count its modes, so that they saw them too.
    """
    people = int(manifest.loc[is_seen(manifest), "subject_id"].nunique())
    if not people:
        return None
    who = counted(people, "subject")
    return (
        f"the bundled networks, from which folds start, were trained on {who} of these: their"
        " out-of-fold codes are of models that saw them. Probes judge the others alone, unless"
        " crossfit.judge is everybody; train_ldm.start_from and train_ldae.start_from: null with"
        " train_ldae.encoder.prior_people: 0 leave the bundled LDAE out"
    )
