"""Write scans.csv: the phantoms and the freely licensed real scans the bundled AE learns from.

Run: python recipes/bundled_ae/table.py PHANTOM_MANIFEST REAL_MANIFEST scans.csv
"""

import sys
from pathlib import Path

import pandas as pd

FREE = ("CC0", "PDDL", "PDDL 1.0")
"""Licences without conditions on derived weights."""


def main(phantom_manifest: Path, real_manifest: Path, out: Path) -> None:
    """Join both; labels keep the strata, so that the split spreads real people and phantoms."""
    real = _read(real_manifest)
    # Test subjects of the study on real data stay unseen: the autoencoder is judged on them.
    real = real[real["licence"].isin(FREE) & (real["split"] != "test")]
    real = real.assign(diagnosis="real", source="real")
    made = _read(phantom_manifest).assign(diagnosis="phantom", source="phantom")
    made["scan_id"] = made["scan_id"].str.replace("sub-", "sub-phantom", n=1)
    made["subject_id"] = made["subject_id"].str.replace("sub-", "sub-phantom", n=1)
    columns = ["scan_id", "subject_id", "session_id", "path", "diagnosis", "source", "licence"]
    table = pd.concat([real, made]).reindex(columns=columns)
    table.to_csv(out, index=False)


def _read(manifest: Path) -> pd.DataFrame:
    table = pd.read_csv(manifest, dtype=str)
    return table.assign(path=[str((manifest.parent / p).resolve()) for p in table["path"]])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
