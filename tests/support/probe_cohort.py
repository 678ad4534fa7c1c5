"""Made-up codes that carry a diagnosis and an age."""

from typing import Any

import numpy as np
import pandas as pd

from pipeline.probes.results import ProbeResults
from schemas.evaluation import ProbeParams

PARAMS = ProbeParams(
    classification={"diagnosis": ("CN", "AD")},
    regression=("age_years",),
    oracle=("ventricle_ml",),
    bootstrap=60,
    folds=3,
    repeats=2,
    permutations=20,
)


QUICK = PARAMS.model_copy(
    update={"bootstrap": 10, "folds": 2, "repeats": 1, "permutations": 0, "heads": ()}
)


def cohort(subjects: int = 36, seed: int = 0) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Return features that carry diagnosis and age, and a manifest with two visits each."""
    generator = np.random.default_rng(seed)
    subject = np.repeat(np.arange(subjects), 2)
    sick = (np.arange(subjects) % 2)[subject]
    age = generator.uniform(55, 85, subjects)[subject]
    split = np.array(["train", "train", "train", "val", "test", "test"])[np.arange(subjects) % 6]
    table = pd.DataFrame(
        {
            "scan_id": [f"sub-{s:03d}_ses-{v}" for v, s in enumerate(subject)],
            "subject_id": [f"sub-{s:03d}" for s in subject],
            "age_years": age,
            "sex": np.where(generator.random(subjects)[subject] < 0.5, "F", "M"),
            "diagnosis": np.where(sick == 1, "AD", "CN"),
            "ventricle_ml": 20 + 0.8 * (age - 55) + 2 * sick,
            "split": split[subject],
        }
    )
    y_sem = generator.normal(size=(2 * subjects, 7))
    y_sem[:, 2] += 2.5 * sick
    y_sem[:, 4] = 5 * y_sem[:, 4] + age
    return {"y_sem": y_sem, "noise": generator.normal(size=(2 * subjects, 5))}, table


def fitted_numbers(results: ProbeResults) -> dict[str, Any]:
    return {
        f"{target}/{name}": p.numbers()
        for target, fits in results.fits.items()
        for name, p in fits.items()
    } | {
        f"{t}/direction": (d.weight, d.mean, d.std, d.spread) for t, d in results.directions.items()
    }


def assert_same_fit(one: ProbeResults, two: ProbeResults) -> None:
    first, second = fitted_numbers(one), fitted_numbers(two)
    assert first.keys() == second.keys()
    for key, numbers in first.items():
        for a, b in zip(numbers, second[key], strict=True):
            # A leak moves them by whole units; another alignment in memory, the last bits.
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=key)
