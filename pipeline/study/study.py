"""The inputs of every part of the evaluation: models, stores, subjects never trained on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.applications.inputs import InputScan, scan_from_store
from pipeline.cohort.subjects import many_subjects_first
from pipeline.models.inference import LdaeInference
from pipeline.nets.lpips import Lpips
from pipeline.stores.latents import LatentStore
from pipeline.stores.out_of_fold import OutOfFoldCodes
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.evaluation import EvaluateParams, ProbeParams
from schemas.params import PhantomParams

EXAMPLES = 6
"""Scans of which every part keeps pictures for the report."""


def of_many_subjects(scans: pd.DataFrame, at_most: int) -> pd.DataFrame:
    """Return at most `at_most` scans, taking one of every subject before a second of any."""
    return scans.iloc[many_subjects_first(scans["subject_id"].tolist())].head(at_most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Models, stores and parameters of an evaluation."""

    models: LdaeInference
    volumes: VolumeStore
    latents: LatentStore
    manifest: pd.DataFrame
    params: EvaluateParams
    probe: ProbeParams
    directions: Path | None = None
    """directions.json of the probe stage."""
    out_of_fold: OutOfFoldCodes | None = None
    """y_sem of training scans by models that never saw their people."""
    voxel_dae: LdaeInference | None = None
    """The baseline whose latents are voxels."""
    phantom: PhantomParams | None = None
    """Of a phantom cohort: the generator's parameters, by which its people can be drawn again."""
    lpips: Lpips | None = None
    """For LPIPS of reconstructions, where its weights were given."""
    drawn: dict[str, Float[Tensor, "X Y Z"]] = field(default_factory=dict)
    """Scan to the mean of its brains decoded from y_sem: reconstruction and identification share
    them, since they take most of the time."""

    @property
    def scans(self) -> pd.DataFrame:
        """Return the manifest's scans that both stores hold."""
        known = self.manifest["scan_id"].isin(self.latents.row_of)
        return self.manifest[known & self.manifest["scan_id"].isin(self.volumes.row_of)]

    @property
    def judged(self) -> pd.DataFrame:
        """Return the scans of the split that is judged.

        Raises
        ------
        ContractError
            If there is none.
        """
        scans = self.scans
        chosen = scans[scans["split"] == self.params.split]
        if chosen.empty:
            raise ContractError(
                f"{self.latents.path}: no scan of the {self.params.split} split; check the"
                " manifest and the quarantine list, or set evaluate.split"
            )
        return chosen

    @property
    def affine(self) -> NDArray[np.float64]:
        """Return voxel to MNI152 world (mm), (4, 4)."""
        return np.asarray(self.models.autoencoder.grid.affine, dtype=np.float64)

    def open_scan(self, scan_id: str) -> InputScan:
        """Return a scan with its latent and its preprocessed volume."""
        return scan_from_store(scan_id, self.models, self.latents, self.volumes)

    def encoder_volumes(self, scan_ids: Iterable[str]) -> Float[Tensor, "B X Y Z"] | None:
        """Return the volumes of scans, if the semantic encoder reads volumes."""
        if not self.models.reads_volumes:
            return None
        return self.volumes.load_unit_interval(list(scan_ids))[:, 0]

    def y_sem(self, scan_ids: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return y_sem of scans, some at a time: volumes of all would not fit in memory."""
        size = self.params.batch_size
        parts = [scan_ids[start : start + size] for start in range(0, len(scan_ids), size)]
        return torch.cat(
            [self.models.embed(self.z_0(part), self.encoder_volumes(part)) for part in parts]
        )

    def noise(self, draw: int) -> Float[Tensor, "1 C X Y Z"]:
        """Return a draw of x_T, the same for every scan.

        Draws come in antithetic pairs, x_T and -x_T: what a brain owes to the noise in the first
        order cancels in the mean of a pair, so that few draws come near the mean over all.
        """
        pair, mirrored = divmod(draw, 2)
        noise = self.models.random_noise(self.params.seed, "draw", pair)
        return -noise if mirrored else noise

    def typical_y_sem(self, scan_ids: Sequence[str]) -> NDArray[np.float32]:
        """Return y_sem (scan, dim) of training scans as unseen scans have it.

        Out of fold where the study was cross-fitted; else by the model that was trained on them,
        whose codes lie further out than those of others.
        """
        if self.out_of_fold is not None:
            rows = self.out_of_fold.rows_of(scan_ids)
            return np.asarray(self.out_of_fold.y_sem[rows])
        codes = self.models.embed(self.z_0(scan_ids), self.encoder_volumes(scan_ids))
        return np.asarray(codes.cpu().numpy())

    def z_0(self, scan_ids: Iterable[str]) -> Float[Tensor, "B C X Y Z"]:
        """Return the standardised posterior means of scans."""
        return self.models.standardise(self.latents.load(list(scan_ids)).mean)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Metrics, table and pictures of one part of the evaluation."""

    metrics: dict[str, Any]
    per_scan: pd.DataFrame = field(default_factory=pd.DataFrame)
    """One row a scan and whatever else was varied."""
    pictures: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """Arrays whose first axis is the example; volumes as uint8."""


def levels(volume: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return a volume in [0, 1] as 256 grey levels."""
    return (np.clip(volume, 0, 1) * 255).round().astype(np.uint8)
