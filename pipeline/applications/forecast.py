"""The next visit of a person: draws of y_sem as people go on, with the person's own x_T."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.applications.generated_volumes import GeneratedVolumes, TitledVolume
from pipeline.imaging.ventricles import intensity_levels
from pipeline.measurement.course import Course, Expected
from pipeline.measurement.region_intervals import RegionIntervals
from pipeline.metrics.ensembles import RunningMoments, prediction_interval, reach
from pipeline.metrics.gaussianity import latent_health
from pipeline.models.inference import LdaeInference
from pipeline.regions.lobes import LobeMeter
from pipeline.runtime.digests import seed_from
from schemas.errors import ParamsError

MAPS = ("mean", "std", "low", "high")
"""Of all draws, voxel by voxel: mean, standard deviation, and the ends of the 90 % interval."""
LAST = "last visit"
"""What a forecast begins with: the last visit as the autoencoder shows it, to compare with."""
LEAST_DRAWS, MOST_DRAWS = 4, 1000
OF_REGIONS = "90 %, of a new scan: as the same regions went on in people seen twice"
OF_DRAWS = (
    "90 % of the draws, which differ in y_sem alone: too narrow for regions; --volumes tells those"
    " of a new scan"
)
Volume = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Where a person stands at the last visit, and what is expected of one further month."""

    x_T: Float[Tensor, "1 C X Y Z"]  # noqa: N815 (as in the paper)
    """Inverted, of the last visit."""
    expected: Expected
    course: Course
    months: float
    """After the last visit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnForecast:
    """Draws of one month, summed up."""

    moments: RunningMoments
    measures: list[dict[str, float]]
    """Millilitres of ventricles and coarse regions, a draw."""
    kept: list[Volume]
    """The draws themselves, where they were asked for."""

    def volume(self, name: str) -> Volume:
        """Return a map of MAPS (X, Y, Z)."""
        if name == "std":
            return self.moments.std.astype(np.float32)
        away = {"mean": 0.0, "low": -1.0, "high": 1.0}[name] * reach(self.moments.count)
        shifted = self.moments.mean + (away * self.moments.std if away else 0)
        return np.clip(shifted, 0, 1).astype(np.float32)

    def volumes_ml(self, halves: Mapping[str, float] | None = None) -> dict[str, dict[str, float]]:
        """Return mean and 90 % interval of each measure: of `halves` each way, or of the draws."""
        told = {}
        for name in self.measures[0]:
            values = [draw[name] for draw in self.measures]
            middle = float(np.mean(values))
            low, high = prediction_interval(values)
            if halves is not None and name in halves:
                low, high = middle - halves[name], middle + halves[name]
            told[name] = {"mean": middle, "low": max(low, 0.0), "high": high}
        return told


def draw_forecast(
    models: LdaeInference,
    outlook: Outlook,
    *,
    count: int,
    names: Sequence[object],
    meter: LobeMeter | None = None,
    residual: Volume | None = None,
    last: Volume | None = None,
    keep: bool = False,
) -> DrawnForecast:
    """Draw the next visit `count` times; draws depend on `names` alone.

    Draws differ in y_sem, as the next visits of the fitting people did from what was expected of
    them, and come in pairs about the mean; x_T is the person's own.

    Parameters
    ----------
    models, outlook
        What to sample with, and from where.
    count
        Draws, at least LEAST_DRAWS.
    names
        What the random numbers depend on: seed, scan, months.
    meter
        Measures each draw, by the intensities of `last`.
    residual
        (X, Y, Z): the last visit's detail that the autoencoder cannot hold, added to every draw.
    last
        (X, Y, Z): the last visit as the autoencoder shows it, with the same detail.
    keep
        Keep every draw.
    """
    generator = np.random.default_rng(seed_from("forecast", *names))
    codes = outlook.course.draws(outlook.expected, count, generator)
    levels = None if meter is None or last is None else intensity_levels(last, meter.affine)
    drawn = DrawnForecast(moments=RunningMoments(), measures=[], kept=[])
    for part in np.array_split(codes, -(-count // models.batch_size)):
        y_sem = torch.from_numpy(part).to(outlook.x_T)
        x_T = outlook.x_T.expand(len(part), *outlook.x_T.shape[1:])
        volumes = models.decode(models.sample(y_sem, x_T)).numpy()
        for made in volumes:
            volume = made if residual is None else np.clip(made + residual, 0, 1)
            drawn.moments.add(volume)
            if meter is not None:
                drawn.measures.append(meter.measure(volume, levels))
            if keep:
                drawn.kept.append(volume.astype(np.float32))
    return drawn


@dataclass(frozen=True, kw_only=True)
class Forecasts(GeneratedVolumes):
    """The last visit, then of each month the maps, and the draws where they are kept."""

    models: LdaeInference
    outlooks: list[Outlook]
    count: int
    seed: int
    name: str
    keep: bool
    last: Volume
    """The last visit as the autoencoder shows it, with its detail where that is added."""
    residual: Volume | None
    visits: Sequence[float] = (0.0,)
    """Months of the visits that were seen."""
    intervals: RegionIntervals | None = None
    """Of ventricles and regions; None takes the spread of the draws."""
    places: list[tuple[int, str, int]] = field(default_factory=list)
    """One a volume: which outlook, which map or `draw`, number of the draw."""

    @cached_property
    def drawn(self) -> list[DrawnForecast]:
        """What was drawn of each outlook."""
        meter = LobeMeter(self.models.autoencoder.grid)
        return [
            draw_forecast(
                self.models,
                outlook,
                count=self.count,
                names=(self.seed, self.name, outlook.months),
                meter=meter,
                residual=self.residual,
                last=self.last,
                keep=self.keep,
            )
            for outlook in self.outlooks
        ]

    def generate(self, rows: slice) -> Float[Tensor, "B X Y Z"]:
        """Return these maps or draws."""
        made = []
        for which, kind, number in self.places[rows]:
            if kind == LAST:
                made.append(self.last)
                continue
            drawn = self.drawn[which]
            made.append(drawn.kept[number] if kind == "draw" else drawn.volume(kind))
        return torch.from_numpy(np.stack(made))

    def outcome(self) -> dict[str, Any]:
        """Return what the draws tell of ventricles and coarse regions, month by month."""
        meter = LobeMeter(self.models.autoencoder.grid)
        before = meter.measure(self.last)
        forecasts = [
            {"months": outlook.months, "volumes_ml": drawn.volumes_ml(self._halves(outlook))}
            for outlook, drawn in zip(self.outlooks, self.drawn, strict=True)
        ]
        known = OF_DRAWS if self.intervals is None else OF_REGIONS
        return {"last_visit_ml": before, "forecasts": forecasts, "interval": known}

    def _halves(self, outlook: Outlook) -> dict[str, float] | None:
        if self.intervals is None:
            return None
        return self.intervals.half_widths(self.visits, self.visits[-1] + outlook.months)

    def comparison(self) -> TitledVolume:
        """Return the last visit: pictures show what is expected to change."""
        return TitledVolume("last visit", self.last)


def forecast(
    models: LdaeInference,
    z_0: Float[Tensor, "1 C X Y Z"],
    volume: Float[Tensor, "1 X Y Z"] | None = None,
    *,
    course: Course,
    earlier: NDArray[np.floating] | None = None,
    visits: Sequence[float] = (0.0,),
    after: Sequence[float],
    draws: int,
    seed: int,
    name: str,
    residual: Volume | None = None,
    keep: bool = False,
    intervals: RegionIntervals | None = None,
) -> Forecasts:
    """Return the next visit at each number of months after the last one.

    Parameters
    ----------
    models, z_0, volume
        Of the last visit.
    course
        How y_sem goes on, `fit_course`.
    earlier
        (visit, dim): y_sem of earlier visits, from which the person's own slope is taken.
    visits
        Months of all visits, the last one's at the end.
    after
        Months after the last visit.
    draws, seed, name
        Draws; they depend on (seed, name, months) alone.
    residual
        The last visit's detail, to be added to every draw.
    keep
        Return the draws too, not their maps alone.
    intervals
        Of ventricles and coarse regions, about the mean of the draws.

    Raises
    ------
    ParamsError
        If there are too few or too many draws.
    ContractError
        If visits are out of order, or no month comes after the last.
    """
    if not LEAST_DRAWS <= draws <= MOST_DRAWS:
        raise ParamsError(f"--draws {draws}: expected {LEAST_DRAWS} to {MOST_DRAWS}")
    codes = models.infer_codes(z_0, volume)
    own = codes.y_sem.double().cpu().numpy()
    values = own if earlier is None else np.concatenate([np.asarray(earlier, np.float64), own])
    at = np.asarray(visits, dtype=np.float64)
    outlooks = [
        Outlook(
            x_T=codes.x_T,
            expected=course.expected(values, at, at[-1] + months),
            course=course,
            months=months,
        )
        for months in after
    ]
    shown = models.decode(z_0)[0].numpy()
    last = shown if residual is None else np.clip(shown + residual, 0, 1).astype(np.float32)
    kinds = [(kind, 0) for kind in MAPS]
    kinds += [("draw", k) for k in range(draws)] if keep else []
    places = [(0, LAST, 0), *((i, kind, k) for i in range(len(outlooks)) for kind, k in kinds)]
    return Forecasts(
        models=models,
        outlooks=outlooks,
        count=draws,
        seed=seed,
        name=name,
        keep=keep,
        last=last,
        residual=residual,
        visits=list(visits),
        intervals=intervals,
        places=places,
        labels=[_label(after[i], kind, k) for i, kind, k in places],
        details=[
            {"months_after": 0.0 if kind == LAST else after[i], "kind": kind}
            | ({"draw": k + 1} if kind == "draw" else {})
            for i, kind, k in places
        ],
        differences=frozenset(_label(months, "std", 0) for months in after),
        record={
            "x_T": "inverted, of the last visit",
            "inversion": latent_health(codes.x_T),
            "y_sem": "drawn about what is expected, as the fitting people's departed from it",
            "draws": draws,
            "seed": seed,
            "own_slope_weight": outlooks[0].expected.own_share,
            "fitted_people": course.people,
            "longest_months_seen": course.longest_months,
            "detail": "of the last visit" if residual is not None else "none",
        },
    )


def _label(months: float, kind: str, draw: int) -> str:
    if kind == LAST:
        return "last-visit"
    return f"months{months:g}-{kind}{draw + 1 if kind == 'draw' else ''}"
