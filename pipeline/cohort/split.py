"""Split subjects into train, val and test: by the user's column, or by a hash in exact shares."""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from pipeline.runtime.digests import seed_from
from schemas.errors import ContractError
from schemas.manifest import Split
from schemas.params import SplitParams

WORDS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def splits_given(
    cells: "pd.Series[str]", subjects: "pd.Series[str]", source: Path
) -> "pd.Series[str]":
    """Return the split of each scan from the user's column.

    Raises
    ------
    ContractError
        If a cell is empty or no split, or a subject is in two splits.
    """
    words = cells.astype("string").str.strip().str.lower()
    splits: pd.Series[str] = words.map(WORDS).astype(object)
    if splits.isna().any():
        row = splits[splits.isna()].index[0]
        state = "is empty" if pd.isna(words[row]) else f"is {cells[row]!r}"
        raise ContractError(
            f"{source}: split of {subjects[row]} {state}, expected train, val or test"
            f" ({splits.isna().sum()} of {len(splits)} scans); correct it, or rename the column"
            " for a split by hash"
        )
    both = splits.groupby(subjects).nunique()
    if (both > 1).any():
        raise ContractError(
            f"{source}: {both.index[both > 1][0]} is in two splits ({(both > 1).sum()} subjects);"
            " a split is by subject"
        )
    return splits


def missing_classes(table: pd.DataFrame, column: str) -> str | None:
    """Return in words which classes train or test lacks though several subjects have them.

    None if both have all. Classes that val lacks do not matter: no figure is computed on val alone.
    """
    people = table.groupby("subject_id")[["split", column]].first().dropna()
    counts = pd.crosstab(people["split"], people[column])
    common = counts.loc[:, counts.sum() >= len(counts)]
    needed = common.loc[common.index.intersection(["train", "test"])]
    missing = [
        f"no {value} in {split}"
        for split, row in needed.iterrows()
        for value, count in row.items()
        if count == 0
    ]
    return ", ".join(missing) if missing and len(common.columns) > 1 else None


def split_subjects(strata: Mapping[str, str], params: SplitParams) -> dict[str, Split]:
    """Return the split of each subject.

    Within each stratum (a label such as the diagnosis, or "") subjects are ranked by a hash of
    seed and id. Their relative ranks are merged and the shares are cut off: train, val, test. So
    the shares are exact to one subject, every stratum is spread evenly, and neither the order of
    the rows nor the number of scans matters. Each share above 0 gets a subject if there are
    enough. Adding subjects can move a few others near the cuts.
    """
    ranked: list[tuple[float, int, str]] = []
    for stratum in sorted(set(strata.values())):
        members = sorted(
            (seed_from("split", params.seed, name), name)
            for name, value in strata.items()
            if value == stratum
        )
        size = len(members)
        ranked += [((i + 0.5) / size, key, name) for i, (key, name) in enumerate(members)]
    names = [name for _, _, name in sorted(ranked)]
    num_train, num_val = _counts(len(names), params)
    return {
        name: "train" if i < num_train else "val" if i < num_train + num_val else "test"
        for i, name in enumerate(names)
    }


def split_unseen(
    strata: Mapping[str, str], seen: Collection[str], params: SplitParams
) -> dict[str, Split]:
    """Return the split of each subject, those that were seen before in train.

    The others are split so that all three shares are those of all, as far as there are enough of
    them; where too many were seen, val and test share the others as they stand to each other.
    """
    others = {name: label for name, label in strata.items() if name not in seen}
    splits: dict[str, Split] = dict.fromkeys(strata.keys() - others.keys(), "train")
    if not others:
        return splits
    judged = 1 - params.train
    left = judged * len(strata) / len(others)
    share = min(1.0, left)
    val = 0.0 if judged <= 0 else share * params.val / judged
    changed = params.model_copy(update={"train": 1 - share, "val": val})
    return splits | split_subjects(others, changed)


def _counts(total: int, params: SplitParams) -> tuple[int, int]:
    """Return the sizes of train and val; no share above 0 is empty if `total` allows."""
    shares = (params.train, params.val, max(0.0, 1 - params.train - params.val))
    wanted = [share > 1e-9 for share in shares]
    train = round(total * params.train)
    val = round(total * (params.train + params.val)) - train
    counts = [train, val, total - train - val]
    if total >= sum(wanted):
        for i in range(3):
            if wanted[i] and counts[i] == 0:
                counts[counts.index(max(counts))] -= 1
                counts[i] += 1
    return counts[0], counts[1]
