"""Interpolate between two scans: linearly in y_sem, along the arc in x_T."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.applications.generated_volumes import GeneratedVolumes, VolumesOfCodes, numbered
from pipeline.applications.time_points import check_alphas
from pipeline.metrics.gaussianity import latent_health
from pipeline.models.inference import Codes, LdaeInference

SMALL_ANGLE = 1e-4
"""Angle (radians) below which the arc is its chord."""


def interpolate(
    models: LdaeInference,
    z_0_a: Float[Tensor, "1 C X Y Z"],
    z_0_b: Float[Tensor, "1 C X Y Z"],
    alphas: Sequence[float],
    *,
    volumes: Float[Tensor, "2 X Y Z"] | None = None,
) -> GeneratedVolumes:
    """Return one volume an alpha: 0 is a's reconstruction, 1 is b's.

    `volumes` are those of a and b, for a semantic encoder that reads volumes.

    Raises
    ------
    ParamsError
        If an alpha is outside [0, 1]: `forecast` goes beyond the scans, and says how surely.
    """
    check_alphas(alphas)
    return between(models, models.infer_codes(torch.cat([z_0_a, z_0_b]), volumes), alphas)


def between(models: LdaeInference, both: Codes, alphas: Sequence[float]) -> VolumesOfCodes:
    """Return one volume an alpha between two scans whose codes, inferred together, are known."""
    labels = numbered("alpha", alphas, digits=3)
    alpha = torch.tensor(alphas, dtype=torch.float64)
    y_sem = torch.lerp(
        both.y_sem[:1].double().cpu(), both.y_sem[1:].double().cpu(), alpha[:, None]
    ).to(both.y_sem)
    return VolumesOfCodes(
        models=models,
        y_sem=y_sem,
        x_T=slerp(both.x_T[:1], both.x_T[1:], alpha),
        labels=labels,
        details=[{"alpha": a} for a in alphas],
        record={
            "x_T": "inverted, spherical interpolation",
            "y_sem": "linear interpolation",
            "inversion": latent_health(both.x_T),
        },
    )


def slerp(
    a: Float[Tensor, "1 C X Y Z"], b: Float[Tensor, "1 C X Y Z"], alpha: Float[Tensor, " N"]
) -> Float[Tensor, "N C X Y Z"]:
    """Return points on the arc from a to b (Shoemake 1985), in float64 inside.

    Nearly parallel noises have no arc: they are joined by a straight line.
    """
    u, v = a.double().flatten(1), b.double().flatten(1)
    cosine = (u * v).sum() / (u.norm() * v.norm()).clamp_min(1e-12)
    angle = torch.arccos(cosine.clamp(-1, 1))
    share = alpha.to(u)[:, None]
    if angle < SMALL_ANGLE:
        points = torch.lerp(u, v, share)
    else:
        points = (torch.sin((1 - share) * angle) * u + torch.sin(share * angle) * v) / angle.sin()
    return points.reshape(-1, *a.shape[1:]).to(a)
