"""New brains: from noise alone, or with y_sem sampled from a prior over training scans."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.applications.generated_volumes import GeneratedVolumes
from pipeline.cohort.manifest import read_manifest
from pipeline.models.inference import LdaeInference
from pipeline.runtime.digests import digest_of, seed_from
from pipeline.stores.open_store import OpenStore
from schemas.errors import ContractError

MIN_SCANS = 2
"""Fewest training scans that a prior is fitted to."""


@dataclass(frozen=True, slots=True)
class GaussianPrior:
    """A Gaussian over y_sem. An approximation: nothing makes y_sem Gaussian in training."""

    mean: NDArray[np.float64]
    """(dim,)."""
    factor: NDArray[np.float64]
    """(dim, dim), lower Cholesky factor of the covariance."""
    num_scans: int
    """Training scans that it was fitted to."""
    out_of_fold: bool = False
    """Whether each scan's y_sem is by a model that never saw its person."""

    @property
    def digest(self) -> str:
        """Return the sha256 of its numbers."""
        return digest_of([self.mean.tolist(), self.factor.tolist()])

    def sample(self, *names: object) -> Float[Tensor, "1 D"]:
        """Return one y_sem that depends on the names alone."""
        noise = np.random.default_rng(seed_from("y_sem", *names)).standard_normal(len(self.mean))
        return torch.from_numpy(self.mean + self.factor @ noise).float()[None]


def fit_prior(y_sem: NDArray[np.floating]) -> GaussianPrior:
    """Fit mean and Ledoit-Wolf covariance (2004) to y_sem of the training scans (scan, dim).

    Shrinkage keeps the covariance regular where there are fewer scans than features.
    """
    from sklearn.covariance import LedoitWolf

    values = np.asarray(y_sem, dtype=np.float64)
    covariance = LedoitWolf().fit(values).covariance_
    # A feature that never varies would make the factor fail.
    jitter = 1e-9 * float(np.trace(covariance)) / len(covariance) + 1e-12
    factor = np.linalg.cholesky(covariance + jitter * np.eye(len(covariance)))
    return GaussianPrior(values.mean(axis=0), factor, len(values))


def prior_of(semantics: Path, manifest: Path, models: LdaeInference) -> GaussianPrior:
    """Fit the prior to y_sem of the manifest's training scans, best to the out-of-fold ones.

    Raises
    ------
    ContractError
        If the store is of another LDAE, or holds fewer than two training scans.
    """
    store = OpenStore(semantics, kind="semantics")
    if store.attributes.digests.get("ldae") != models.ldae.digest:
        raise ContractError(f"{semantics}: y_sem of another LDAE than --ldae; run `pipeline embed`")
    table = read_manifest(manifest)
    train = table["scan_id"][table["split"] == "train"]
    rows = [store.row_of[scan] for scan in train if scan in store.row_of]
    if len(rows) < MIN_SCANS:
        raise ContractError(
            f"{semantics}: {len(rows)} training scans of {manifest}, at least {MIN_SCANS} needed"
        )
    return replace(fit_prior(store.read("y_sem")[rows]), out_of_fold="fold" in store.group)


@dataclass(frozen=True, kw_only=True)
class NewBrains(GeneratedVolumes):
    """Volumes of random x_T, and of random y_sem where there is a prior."""

    models: LdaeInference
    seed: int
    prior: GaussianPrior | None

    def generate(self, rows: slice) -> Float[Tensor, "B X Y Z"]:
        """Sample codes of these brains and decode them."""
        numbers = range(1, len(self.labels) + 1)[rows]
        x_T = torch.cat([self.models.random_noise(self.seed, "generate", k) for k in numbers])
        y_sem = None
        if self.prior is not None:
            codes = [self.prior.sample(self.seed, "generate", k) for k in numbers]
            y_sem = torch.cat(codes).to(self.models.device)
        return self.models.decode(self.models.sample(y_sem, x_T))


def generate(
    models: LdaeInference, *, count: int, seed: int, prior: GaussianPrior | None
) -> GeneratedVolumes:
    """Return `count` volumes; brain k depends on (seed, k) alone.

    Without a prior they are the denoiser's (latent diffusion, unconditional); with one, the LDAE's,
    of y_sem sampled from the prior and random x_T.
    """
    method = (
        "unconditional latent diffusion: the denoiser alone, no y_sem"
        if prior is None
        else "LDAE with y_sem drawn from a Gaussian (Ledoit-Wolf covariance) fitted to"
        f" {prior.num_scans} training scans"
        + (", each embedded by a model that never saw its person" if prior.out_of_fold else "")
    )
    numbers = range(1, count + 1)
    return NewBrains(
        models=models,
        seed=seed,
        prior=prior,
        labels=[f"generate-{k}" for k in numbers],
        details=[{"draw": k} for k in numbers],
        record={"x_T": "random", "method": method, "seed": seed},
    )
