"""y_sem harmonised over sites by ComBat, fitted on the fitting scans of each fold alone."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.probes.confounds.sites import UNKNOWN, site_names
from pipeline.probes.estimators import LabelledFeatures, Probe, code_head
from pipeline.runtime.progress import counted
from schemas.errors import ParamsError
from schemas.evaluation import ProbeParams
from schemas.metrics import MIN_SUBJECTS

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Method = Literal["fortin", "gam"]

HARMONISED = "y_sem harmonised"
FEWEST_SITES = 2


def require_combatlearn(params: ProbeParams) -> None:
    """Raise unless nothing is to be harmonised or combatlearn is installed.

    Raises
    ------
    ParamsError
        If it is missing.
    """
    if params.harmonise != "none" and importlib.util.find_spec("combatlearn") is None:
        raise ParamsError(
            f"probe.harmonise {params.harmonise}: combatlearn is not installed;"
            " pip install 'ldae-pipeline[harmonise]'"
        )


def site_codes(table: pd.DataFrame) -> Floats:
    """Return the number of each scan's site (scan, 1), in alphabetical order; -1 for unknown."""
    names = site_names(table)
    known = np.unique(names[names != UNKNOWN])
    codes = np.where(names == UNKNOWN, -1, np.searchsorted(known, names))
    return np.asarray(codes[:, None], dtype=np.float64)


def site_trouble(
    table: pd.DataFrame,
    splits: Sequence[tuple[Rows, Rows]],
    unseen: Literal["refuse", "pool"],
) -> tuple[str | None, bool]:
    """Return a line on scans of sites that ComBat cannot know, and whether it can be used.

    `splits` are (fitting rows, judged rows). A site that fewer than MIN_SUBJECTS people of the
    fitting rows are of cannot be harmonised: `refuse` leaves the feature set out, `pool` leaves
    these scans as they are.
    """
    names, subjects = site_names(table), table["subject_id"].to_numpy(dtype=str)
    left: set[int] = set()
    for fit, judged in splits:
        known = _known_sites(names[fit], subjects[fit])
        if len(known) < FEWEST_SITES:
            return f"fewer than {FEWEST_SITES} sites of {MIN_SUBJECTS} people to fit on", False
        rows = np.concatenate([fit, judged])
        left |= set(rows[~np.isin(names[rows], known)].tolist())
    if not left:
        return None, True
    first = str(names[min(left)]) or "unknown"
    about = (
        f"{counted(len(left), 'scan')} of a site with fewer than {MIN_SUBJECTS} people to fit on"
        f" in some fold, first {first}"
    )
    if unseen == "refuse":
        remedy = "probe.harmonise_unseen: pool leaves such scans as they are"
        return f"{about}; not read ({remedy})", False
    return f"{about}; such scans are left as they are", True


def _known_sites(names: NDArray[Any], subjects: NDArray[Any]) -> list[Any]:
    """Return the sites of MIN_SUBJECTS people or more, but the unknown one."""
    found = [
        name for name in np.unique(names) if len(np.unique(subjects[names == name])) >= MIN_SUBJECTS
    ]
    return [name for name in found if name not in (UNKNOWN, -1.0)]


@dataclass(frozen=True, slots=True)
class Harmoniser:
    """ComBat, fitted."""

    combat: Any
    known: list[float]
    """Codes of the sites that were fitted on."""
    dim: int
    """Of y_sem."""
    moving: NDArray[np.bool_]
    """(dim,), which features vary in the fitting scans."""
    kept: NDArray[np.bool_]
    """(covariate,), which covariates vary in the fitting scans."""

    def harmonised(self, features: NDArray[np.floating]) -> Floats:
        """Return y_sem (scan, dim) without the site; scans of other sites as they are.

        `features` have covariates and the site's code in their last columns.
        """
        x = np.asarray(features, dtype=np.float64)
        y_sem = x[:, : self.dim].copy()
        rows = np.flatnonzero(np.isin(x[:, -1], self.known))
        if len(rows) and self.moving.any():
            inputs = combat_inputs(x[rows], self.dim, self.moving, self.kept)
            changed = self.combat.transform(inputs.pop("X"), **inputs)
            y_sem[np.ix_(rows, self.moving)] = np.asarray(changed, dtype=np.float64)
        return y_sem


@dataclass(frozen=True, slots=True)
class HarmonisedProbe:
    """A probe on features from which ComBat took the site out."""

    harmoniser: Harmoniser
    probe: Probe

    def score(self, features: NDArray[np.floating]) -> Floats:
        """Return the score of features with covariates and site in their last columns."""
        return self.probe.score(self.harmoniser.harmonised(features))

    def numbers(self) -> list[Floats]:
        """Return the fitted numbers of the probe, which depend on ComBat's."""
        return self.probe.numbers()


def combat_inputs(
    x: Floats, dim: int, moving: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return what ComBat takes: features, site, covariates, one index for all."""
    inputs: dict[str, Any] = {
        "X": pd.DataFrame(x[:, :dim][:, moving]),
        "batch": pd.Series(x[:, -1].astype(int).astype(str)),
    }
    covariates = x[:, dim:-1][:, kept]
    if covariates.shape[1]:
        named = [f"covariate {number}" for number in range(covariates.shape[1])]
        inputs["continuous_covariates"] = pd.DataFrame(covariates, columns=named)
    return inputs


def harmonised_head(
    data: LabelledFeatures, params: ProbeParams, *, dim: int, method: Method
) -> HarmonisedProbe:
    """Fit ComBat, then a linear layer, on y_sem (dim), covariates to be kept, and a site's code."""
    harmoniser = fit_harmoniser(data.doubles, data.subjects, dim=dim, method=method)
    left = LabelledFeatures(
        harmoniser.harmonised(data.features), data.truth, data.subjects, data.kind
    )
    return HarmonisedProbe(harmoniser, code_head(left, params))


def fit_harmoniser(x: Floats, subjects: NDArray[Any], *, dim: int, method: Method) -> Harmoniser:
    """Fit ComBat to scans (scan, dim + covariate + 1), the last column a site's code.

    It has the scans of known sites, all alike, and protects the covariates (Fortin et al. 2018;
    `gam` lets those of more than two values bend, Pomponio et al. 2020). The label is not among
    them: judged scans would need theirs.
    """
    # Not combatlearn's ComBat: it wants the sites of all scans beforehand, and looks them up by row
    # label, so that a table with another index gets other scans' sites without a word.
    from combatlearn.core import ComBatModel

    known = [float(code) for code in _known_sites(x[:, -1], subjects)]
    rows = np.flatnonzero(np.isin(x[:, -1], known))
    covariates = x[rows][:, dim:-1]
    kept, moving = np.ptp(covariates, axis=0) > 0, np.ptp(x[rows][:, :dim], axis=0) > 0
    bending: list[str | int] = [
        f"covariate {number}"
        for number, column in enumerate(covariates[:, kept].T)
        if method == "gam" and len(np.unique(column)) > 2
    ]
    combat = ComBatModel(
        method="gam" if bending else "fortin", smooth_terms=bending if bending else None
    )
    inputs = combat_inputs(x[rows], dim, moving, kept)
    combat.fit(inputs.pop("X"), **inputs)
    return Harmoniser(combat, known, dim, moving, kept)
