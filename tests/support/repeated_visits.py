"""A manifest in which people of the tiny stores come twice, and their semantics."""

from pathlib import Path

import pandas as pd

from schemas.manifest import MANIFEST_COLUMNS


def write_repeated(folder: Path, split: dict[str, list[str]], *, twice: bool = True) -> Path:
    """Write manifest.csv: two scans a person, a year apart; the first three of test are one's."""
    rows = []
    for name, scans in split.items():
        for i, scan in enumerate(scans):
            person = scans[i - i % 2] if twice else scan
            months = 12.0 * (i % 2)
            if name == "test" and twice:
                person, months = scans[0] if i < 3 else scan, 6.0 * i
            about = {"scan_id": scan, "subject_id": person, "split": name}
            rows.append(dict.fromkeys(MANIFEST_COLUMNS, "x") | about | {
                "age_years": 70.0, "months_from_first": months, "diagnosis": ("CN", "AD")[i % 2],
            })  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"
