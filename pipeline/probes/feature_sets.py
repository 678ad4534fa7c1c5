"""All feature sets of a study, fitted on the training scans of one split or of several."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pipeline.probes.confounds.covariates import COVARIATES, WITH_COVARIATES, WITHOUT_COVARIATES
from pipeline.probes.confounds.harmonise import HARMONISED
from pipeline.probes.confounds.sites import SITE
from pipeline.probes.cross_fitting import CrossFit
from pipeline.probes.encoder_baselines import encoder_baselines
from pipeline.probes.estimators import Head, code_head
from pipeline.probes.features import (
    Features,
    MeasuredVolumes,
    latent_features,
    measure_volumes,
    read_means,
    volume_features,
)
from pipeline.probes.pca_rivals import unwhitened
from pipeline.probes.rivals import read_rivals
from pipeline.probes.size_features import BESIDE, SIZE, beside_head
from pipeline.stores.latents import LatentStore
from pipeline.stores.open_store import OpenStore
from pipeline.stores.out_of_fold import OutOfFoldCodes, fold_digest_name, fold_folder
from pipeline.stores.provenance import check_same_scans
from pipeline.stores.volumes import VolumeStore
from schemas.evaluation import ProbeParams

CODES = {"y_sem", "mode_amounts", "tissue_amounts", "untrained"}
"""Feature sets that are read as they are or standardised, whichever is better on inner folds."""
OWN_NAMES = (
    "chance",
    "age_sex",
    "oracle",
    SITE,
    COVARIATES,
    WITH_COVARIATES,
    WITHOUT_COVARIATES,
    HARMONISED,
)
"""Feature sets that every target makes for itself."""


@dataclass(frozen=True, slots=True)
class FeatureSets:
    """Feature sets of the same scans, the heads that read some of them, and lines about them."""

    features: Features
    heads: dict[str, Head] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureInputs:
    """What feature sets are made of, read once."""

    table: pd.DataFrame
    """Manifest rows of the scans."""
    mean: NDArray[np.float32] | None
    """(scan, C, X, Y, Z), posterior means."""
    measured: MeasuredVolumes | None
    latents: LatentStore | None
    params: ProbeParams
    device: torch.device

    def fit(
        self,
        y_sem: NDArray[np.floating],
        table: pd.DataFrame,
        ldae: Path | None,
        *,
        made_by: str,
        own: NDArray[np.floating] | None = None,
    ) -> FeatureSets:
        """Return all feature sets, fitted on the scans that are `train` in `table`.

        `ldae`, of digest `made_by`, is the model whose encoder is judged untrained; `own` are its
        codes of all scans, where `y_sem` may be of other models too.
        """
        train = (table["split"] == "train").to_numpy()
        features: Features = {"y_sem": y_sem}
        heads: dict[str, Head] = {}
        if self.mean is not None:
            features |= latent_features(self.mean, y_sem, train)
        if self.measured is not None:
            features |= volume_features(self.measured, train)
            features[BESIDE] = np.hstack([y_sem, features[SIZE]])
            heads[BESIDE] = beside_head
        if self.latents is not None and ldae is not None:
            more, trained = encoder_baselines(
                ldae,
                self.latents,
                table,
                self.params,
                self.device,
                y_sem=y_sem,
                made_by=made_by,
                own=own,
            )
            features |= more
            heads |= trained
        rivals, lines = read_rivals(self.params.rivals, table, [*features, *OWN_NAMES])
        features |= rivals
        heads |= dict.fromkeys(CODES & features.keys(), code_head)
        again, unscaled = unwhitened(features)
        return FeatureSets(features | again, heads | unscaled, lines)

    def cross_fit(self, codes: OutOfFoldCodes, *, encoders: bool) -> CrossFit:
        """Return feature sets fitted on all folds but one, for each fold.

        y_sem of all scans is by the model that was trained without the fold, in its own space: a
        probe fitted on the others' codes reads those of people whom that model never saw.
        With `encoders`, those of the folds' models, untrained, are among them.
        """
        rows = codes.rows_of(list(self.table["scan_id"]))
        fold = codes.fold[rows]
        tables = [
            self.table.assign(split=np.where(fold == left_out, "test", "train"))
            for left_out in range(codes.folds)
        ]
        sets = [
            self.fit(
                codes.by_fold[rows, left_out],
                table,
                fold_folder(codes.path.parent, left_out) / "ldae" if encoders else None,
                made_by=codes.digests[fold_digest_name(left_out)],
                own=codes.by_fold[rows, left_out],
            ).features
            for left_out, table in enumerate(tables)
        ]
        return CrossFit(fold, sets, codes.result)


def read_inputs(
    semantics: OpenStore,
    table: pd.DataFrame,
    params: ProbeParams,
    device: torch.device,
    *,
    latents: LatentStore | None,
    volumes: VolumeStore | None,
) -> FeatureInputs:
    """Read what feature sets are made of.

    Raises
    ------
    ContractError
        If the stores do not belong together, or lack a scan.
    """
    mean = None if latents is None else read_means(semantics, latents, table)
    measured = None
    if volumes is not None:
        if latents is not None:
            check_same_scans(latents, volumes, list(table["scan_id"]))
        measured = measure_volumes(volumes, table)
    return FeatureInputs(
        table=table, mean=mean, measured=measured, latents=latents, params=params, device=device
    )
