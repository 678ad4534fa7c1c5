"""What a probe answers at a place along its direction, with the interval that unseen people give.

A number (age) has the interval that holds 90 % of unseen people's errors. A yes or no has the share
of yes among the unseen people whom the probe found most alike, with the exact interval of that
share: the probability itself has none. Both are intervals of real people; how sure the answer to a
brain that a model moved is, nobody knows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.metrics.intervals import exact_share
from pipeline.probes.applied import SavedProbe
from schemas.results import PROTOCOLS

Floats = NDArray[np.float64]

LEVEL = 0.9
"""Share of unseen people whose error the interval of a number holds."""
FEWEST = 10
"""Unseen people from which on there is an interval."""
ALIKE = 15
"""Unseen people whom a share is taken of."""
REACH = 8.0
"""Furthest place (SD along the direction) that is answered."""
PLACES = 65


@dataclass(frozen=True, slots=True)
class Unseen:
    """Answers to people on whom the probe was not fitted."""

    truth: Floats
    """(person,): 0 or 1, or a value."""
    score: Floats
    """(person,): probability, or a value."""


def unseen_people(predictions: pd.DataFrame | None, target: str) -> Unseen | None:
    """Return the answers to people left out, one a person, of the protocol that has most of them.

    Of cross-validation's repeats, the first counts.
    """
    if predictions is None:
        return None
    chosen = predictions["target"].eq(target) & predictions["feature_set"].eq("y_sem")
    rows = predictions[chosen & predictions["repeat"].eq(0)]
    tables = [
        rows[rows["protocol"] == protocol].groupby("subject_id")[["truth", "score"]].mean().dropna()
        for protocol in PROTOCOLS
    ]
    most = max(tables, key=len)
    if len(most) < FEWEST:
        return None
    return Unseen(most["truth"].to_numpy(float), most["score"].to_numpy(float))


def answers(probe: SavedProbe, unseen: Unseen | None) -> dict[str, Any]:
    """Return the probe's answer at places along its direction, and what the interval is."""
    places = np.linspace(-REACH, REACH, PLACES)
    codes = probe.direction.mean + places[:, None] * probe.direction.step
    score = probe.score(codes)
    document: dict[str, Any] = {
        "kind": probe.readout.kind,
        "classes": probe.readout.classes,
        "places": places.tolist(),
        "value": score.tolist(),
    }
    if unseen is None:
        return document | {"interval": f"no interval: fewer than {FEWEST} people were left out"}
    if probe.readout.kind == "regression":
        reach = conformal_reach(np.abs(unseen.truth - unseen.score))
        return document | {
            "low": (score - reach).tolist(),
            "high": (score + reach).tolist(),
            "interval": f"holds {LEVEL:.0%} of {len(unseen.truth)} real people left out",
        }
    shares = [_share_alike(unseen, value) for value in score]
    count = min(ALIKE, len(unseen.truth))
    return document | {
        "share": [share.value for share in shares],
        "low": [share.low for share in shares],
        "high": [share.high for share in shares],
        "interval": f"share among the {count} real people left out whom the probe found most alike",
    }


def conformal_reach(errors: Floats) -> float:
    """Return the reach that holds LEVEL of new people's errors, of finitely many seen ones.

    Split conformal: the ceil((n + 1) LEVEL)-th smallest error, or the largest where n is too small.
    """
    rank = min(len(errors), int(np.ceil((len(errors) + 1) * LEVEL)))
    return float(np.sort(errors)[rank - 1])


def _share_alike(unseen: Unseen, score: float) -> Any:
    alike = np.argsort(np.abs(unseen.score - score), kind="stable")[:ALIKE]
    return exact_share(unseen.truth[alike].round())
