#!/usr/bin/env bash
# scikit-learn's StratifiedGroupKFold with shuffle=True: does another random_state draw other folds?
#
# Guess before running: yes, as GroupKFold and StratifiedKFold do, so that twenty seeds are twenty repeats.
# What happens: groups are shuffled, then sorted by how unevenly their members are spread over the classes
# (a stable sort), and placed one by one where they fit best. Only groups with the same spread can change
# places. Where every group has another number of members, all seeds give one and the same partition, and
# "repeated" cross-validation repeats one split; no warning is given. With groups of one size, seeds differ.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.3.5
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import sklearn
from sklearn.model_selection import StratifiedGroupKFold

SEEDS = range(20)


def partitions(sizes):
    """Return the number of different partitions that the seeds give for groups of these sizes."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = groups % 2
    found = set()
    for seed in SEEDS:
        folds = StratifiedGroupKFold(n_splits=4, shuffle=True, random_state=seed)
        tests = [frozenset(groups[test]) for _, test in folds.split(groups, labels, groups)]
        found.add(frozenset(tests))
    return len(found)


different = partitions(np.arange(1, 17))
alike = partitions(np.full(16, 5))
print(f"scikit-learn {sklearn.__version__}, 20 seeds, 16 groups, 4 folds")
print(f"groups of 1, 2, ..., 16 members: {different} different partition")
print(f"groups of 5 members each: {alike} different partitions")
assert different == 1, "seeds now change the folds of groups that differ in size"
assert alike > 10, "seeds no longer change the folds of groups of one size"
PYTHON
