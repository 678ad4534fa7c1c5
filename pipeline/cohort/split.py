"""The split: by subject, from a hash, in exact shares."""

from collections.abc import Mapping

from pipeline.compute import seed_from
from schemas.manifest import Split
from schemas.params import SplitParams


def split_subjects(strata: Mapping[str, str], params: SplitParams) -> dict[str, Split]:
    """Return the split of each subject.

    Within each stratum (a label such as the diagnosis, or "") subjects are ranked by a hash of
    seed and id. Their relative ranks are merged and the shares are cut off: train, val, test. So
    the shares are exact to one subject, every stratum is spread evenly, and neither the order of
    the rows nor the number of scans matters. Each share that is asked for gets a subject while
    there are enough. Adding subjects can move a few others near the cuts.
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


def _counts(total: int, params: SplitParams) -> tuple[int, int]:
    """Return the sizes of train and val; no share asked for is empty if `total` allows."""
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
