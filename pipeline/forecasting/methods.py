"""Ways to foresee a person's next visit from the visits before it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.applications.forecast import Outlook, draw_forecast
from pipeline.applications.inputs import InputScan
from pipeline.forecasting.learned import Learned
from pipeline.models.inference import LdaeInference
from pipeline.runtime.digests import seed_from

TARGETS = ("scan", "decoded")
"""The preprocessed visit, with the last visit's detail added to what a model made; and what the
autoencoder makes of the visit, where its blur is on both sides."""
METHODS = ("ldae", "carried_forward", "latent_trend", "voxel_trend", "voxel_trend_own")
"""Mean of the LDAE's draws; the last visit as it is; the decoded course of latents; the last visit
plus the mean change of a voxel; the same by the person's own straight line, of two visits."""
DRAWN = ("ldae", "latent_trend")
"""Methods that tell an interval."""

Volume = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FutureVisit:
    """A person's visits, the last of which is to be foreseen."""

    subject_id: str
    earlier: Sequence[InputScan]
    """In order, with volumes."""
    months: Sequence[float]
    """Of the earlier visits."""
    target_id: str
    target_month: float

    @property
    def gap_months(self) -> float:
        """Return the months from the last earlier visit to the target."""
        return self.target_month - self.months[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What the methods made: {target: {method: …}}."""

    volumes: dict[str, dict[str, Volume]]
    draws: dict[str, dict[str, list[Volume]]]
    """Of DRAWN."""


def foresee(
    models: LdaeInference, visit: FutureVisit, learned: Learned, *, draws: int, seed: int
) -> Foreseen:
    """Return the target visit as each method foresees it from the earlier visits alone.

    Raises
    ------
    ValueError
        If a scan comes without its volume.
    """
    volumes = [scan.volume for scan in visit.earlier if scan.volume is not None]
    if len(volumes) < len(visit.earlier):
        raise ValueError("future visits are judged on volumes; open the scans with them")
    last, scan = volumes[-1], visit.earlier[-1]
    shown = models.decode(scan.z_0)[0].numpy()
    detail = last - shown
    drawn = {
        "ldae": _draws_of_ldae(models, visit, learned, draws, seed),
        "latent_trend": _draws_of_latents(models, visit, learned, draws, seed),
    }
    with_detail = {
        name: [np.clip(one + detail, 0, 1) for one in each] for name, each in drawn.items()
    }
    by_voxels = {"carried_forward": last, "voxel_trend": _onwards(last, learned, visit.gap_months)}
    if len(volumes) > 1:
        by_voxels["voxel_trend_own"] = _own_line(volumes, visit.months, visit.target_month)
    return Foreseen(
        volumes={
            "scan": _means(with_detail) | by_voxels,
            "decoded": _means(drawn) | {"carried_forward": shown},
        },
        draws={"scan": with_detail, "decoded": drawn},
    )


def _means(draws: dict[str, list[Volume]]) -> dict[str, Volume]:
    return {
        name: np.asarray(np.mean(each, axis=0, dtype=np.float64), np.float32)
        for name, each in draws.items()
    }


def _draws_of_ldae(
    models: LdaeInference, visit: FutureVisit, learned: Learned, count: int, seed: int
) -> list[Volume]:
    codes = [models.embed(scan.z_0, scan.encoder_volume) for scan in visit.earlier]
    x_T = models.invert(codes[-1], visit.earlier[-1].z_0)
    values = torch.cat(codes).double().cpu().numpy()
    outlook = Outlook(
        x_T=x_T,
        expected=learned.y_sem.expected(values, np.asarray(visit.months), visit.target_month),
        course=learned.y_sem,
        months=visit.gap_months,
    )
    names = (seed, visit.target_id)
    return draw_forecast(models, outlook, count=count, names=names, keep=True).kept


def _draws_of_latents(
    models: LdaeInference, visit: FutureVisit, learned: Learned, count: int, seed: int
) -> list[Volume]:
    z_0 = torch.cat([scan.z_0 for scan in visit.earlier])
    values = z_0.flatten(1).double().cpu().numpy()
    expected = learned.latent.expected(values, np.asarray(visit.months), visit.target_month)
    generator = np.random.default_rng(seed_from("latent trend", seed, visit.target_id))
    latents = learned.latent.draws(expected, count, generator)
    made = models.decode(torch.from_numpy(latents).to(z_0).reshape(-1, *z_0.shape[1:])).numpy()
    return list(made)


def _onwards(last: Volume, learned: Learned, months: float) -> Volume:
    return np.clip(last + np.float32(months) * learned.voxel_rate, 0, 1).astype(np.float32)


def _own_line(volumes: Sequence[Volume], months: Sequence[float], at: float) -> Volume:
    """Return the least-squares line through a person's own visits, voxel by voxel."""
    times = np.asarray(months, dtype=np.float64)
    away = times - times.mean()
    weights = 1 / len(times) + (at - times.mean()) * away / float(away @ away)
    total = np.tensordot(weights, np.stack(volumes).astype(np.float64), axes=1)
    return np.clip(total, 0, 1).astype(np.float32)
