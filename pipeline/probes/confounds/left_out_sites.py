"""y_sem at each site: read by a probe of the other sites, and compared within the site alone."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.bootstrap import Rows
from pipeline.probes.confounds.sites import UNKNOWN, site_column, site_names
from pipeline.probes.confounds.within_sources import Judged, within_one_source
from pipeline.probes.probe_intervals import probe_estimates
from pipeline.probes.targets import Target
from schemas.metrics import FEWEST_SUBJECTS, MIN_SUBJECTS
from schemas.results import BySite, Figures, SiteFigures

Floats = NDArray[np.float64]

FEATURES = ("y_sem", "chance")
SHOWN = ("roc_auc", "mae", "mae_gain")


@dataclass(slots=True)
class _LeftOut:
    """Scores of scans by probes that saw nobody of their sites."""

    rows: list[Rows] = field(default_factory=list)
    scores: list[dict[str, Floats]] = field(default_factory=list)


def figures_by_site(
    target: Target, rows: Rows, judged: Judged
) -> tuple[BySite | None, dict[str, str]]:
    """Return y_sem's figures at each site, and a line for each site without.

    `left_out`: the probe is fitted on the judged people of all other sites, and judged once on the
    site's. People scanned at several sites are fitted on for none of theirs, nor are scans of
    unknown site. `within`: people of the site compared with each other, by the scores of
    cross-validation. A site needs FEWEST_SUBJECTS people, MIN_SUBJECTS of each class where there
    are classes. None where there are not two sites.

    Parameters
    ----------
    target
        y_sem and labels of the scans.
    rows
        Those that are judged.
    judged
        Scores of cross-validation, of `rows`: y_sem and chance.
    """
    table = target.table.iloc[rows]
    column, site = site_column(table), site_names(table)
    names = [str(name) for name in np.unique(site[site != UNKNOWN])]
    if column is None or column == target.name or len(names) < 2:
        return None, {}
    found, lines, left_out = BySite(column=column), {}, _LeftOut()
    for name in names:
        here = rows[site == name]
        reason = _too_few(target, here, name)
        if reason is None:
            people = len(np.unique(target.subjects[here]))
            within = within_one_source(judged.take(np.flatnonzero(site == name)), target.kind)
            found.sites[name] = SiteFigures(people=people, within=within)
            others = rows[(site != name) & (site != UNKNOWN)]
            fit = others[~np.isin(target.subjects[others], target.subjects[here])]
            reason = target.unfit_reason(fit, f"the sites other than {name}")
            if reason is None:
                found.sites[name].left_out = _judge(target, fit, here, left_out)
        if reason is not None:
            lines[f"{target.name}/{column}/{name}"] = reason
    if len(left_out.rows) > 1:
        found.left_out = _pooled(target, left_out)
    return found, lines


def _too_few(target: Target, here: Rows, name: str) -> str | None:
    """Return why nothing is judged at a site, or None."""
    people = len(np.unique(target.subjects[here]))
    told = f"{target.name}, site {name}: {people} {'person' if people == 1 else 'people'}"
    for label, of_class in enumerate(target.classes or ()):
        count = len(np.unique(target.subjects[here[target.truth[here] == label]]))
        if count < MIN_SUBJECTS:
            return f"{told}, {count} {of_class}, so the site is not judged by itself"
    if target.classes is None and people < FEWEST_SUBJECTS:
        return f"{told}, at least {FEWEST_SUBJECTS} are needed to judge the site by itself"
    return None


def _judge(target: Target, fit: Rows, here: Rows, left_out: _LeftOut) -> Figures:
    names = [name for name in FEATURES if name in target.features]
    scores = {
        name: target.fit(name, fit).score(target.features[name][here])[None] for name in names
    }
    left_out.rows.append(here)
    left_out.scores.append(scores)
    return _figures(target, here, scores, None)


def _pooled(target: Target, left_out: _LeftOut) -> Figures:
    """Return the figures of all left-out sites together, people ranked within their sites."""
    rows = np.concatenate(left_out.rows)
    sizes = [len(part) for part in left_out.rows]
    scores = {
        name: np.concatenate([one[name] for one in left_out.scores], axis=1)
        for name in left_out.scores[0]
    }
    return _figures(target, rows, scores, np.repeat(np.arange(len(sizes)), sizes)[None])


def _figures(target: Target, rows: Rows, scores: dict[str, Floats], fold: Rows | None) -> Figures:
    found = probe_estimates(
        target.truth[rows], scores, target.subjects[rows], target.kind, fold=fold, draws=1
    )
    return {metric: one for metric, one in found[FEATURES[0]].items() if metric in SHOWN}
