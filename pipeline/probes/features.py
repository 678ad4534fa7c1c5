"""Feature sets of probes: y_sem and its rivals."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from pipeline.imaging.ventricles import native_ml, ventricle_ml
from pipeline.probes.pca_rivals import MATCHED, matched_components
from pipeline.probes.size_features import SIZE, log_scales
from pipeline.stores.latents import LatentStore
from pipeline.stores.open_store import OpenStore
from pipeline.stores.provenance import check_same_latents
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError

MAX_COMPONENTS = 50
MAX_PCA_SCANS = 1000
"""Training scans, evenly spread, that a PCA is fitted on."""
MAX_PCA_VOXELS = 60_000
"""Volumes are averaged over cubes until they have no more voxels than this, for PCA of voxels."""

Features = dict[str, NDArray[np.floating]]


def fit_pca(flat: NDArray[np.floating], components: int = MAX_COMPONENTS) -> PCA:
    """Fit at most so many components to rows of training scans (scan, dim)."""
    if len(flat) > MAX_PCA_SCANS:
        flat = flat[np.linspace(0, len(flat) - 1, MAX_PCA_SCANS).astype(int)]
    return PCA(min(components, len(flat) - 1), svd_solver="full").fit(flat)


def semantic_table(semantics: OpenStore, manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the manifest's rows that the semantics store holds.

    Raises
    ------
    ContractError
        If it holds none of them.
    """
    table = manifest[manifest["scan_id"].isin(semantics.row_of)].reset_index(drop=True)
    if table.empty:
        raise ContractError(
            f"{semantics.path}: holds no scan of the manifest; run `pipeline embed`"
        )
    return table


def read_means(
    semantics: OpenStore, latents: LatentStore, table: pd.DataFrame
) -> NDArray[np.float32]:
    """Return the posterior means of the table's scans, (scan, C, X, Y, Z).

    Raises
    ------
    ContractError
        If y_sem was made of other latents.
    """
    check_same_latents(semantics, latents, list(table["scan_id"]))
    mean: NDArray[np.float32] = latents.load(list(table["scan_id"])).mean.float().numpy()
    return mean


def latent_features(
    mean: NDArray[np.float32], y_sem: NDArray[np.floating], fit: NDArray[np.bool_]
) -> Features:
    """Return feature sets (scan, dim) from posterior means (scan, C, X, Y, Z).

    `pca_latents` is fitted on the scans `fit` alone, and so is `pca_latents_matched`, which has
    y_sem's dimension and spectrum.
    """
    features: Features = {}
    if fit.sum() > 1:
        flat = mean.reshape(len(mean), -1)
        most = max(MAX_COMPONENTS, y_sem.shape[1])
        scores = fit_pca(flat[fit], most).transform(flat)
        features["pca_latents"] = scores[:, :MAX_COMPONENTS]
        features[MATCHED] = matched_components(scores, y_sem, fit, seed=0)
    features["mean_latents"] = mean.mean(axis=(2, 3, 4))
    return features


@dataclass(frozen=True, slots=True)
class MeasuredVolumes:
    """What features of volumes are made of."""

    ml: NDArray[np.float64]
    """(scan, 3): the fluid of the lateral ventricles, the brain's volume (both ml of the scan's own
    space) and their ratio: measured on the scan, not known from a phantom."""
    size: NDArray[np.float64]
    """(scan, 4): three log-scales of the way to the template, logarithm of the brain's volume."""
    coarse: NDArray[np.float32]
    """(scan, voxel): volumes averaged over small cubes."""


def measure_volumes(volumes: VolumeStore, table: pd.DataFrame) -> MeasuredVolumes:
    """Read and measure the volumes of the table's scans.

    Raises
    ------
    ContractError
        If the store lacks a scan.
    """
    missing = [scan for scan in table["scan_id"] if scan not in volumes.row_of]
    if missing:
        raise ContractError(
            f"{volumes.path}: {len(missing)} scans not in it, first {missing[0]}; run"
            " `pipeline preprocess`"
        )
    affine = np.asarray(volumes.attributes.grid.affine, dtype=np.float64)
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    measured, sizes, coarse = [], [], []
    matrices = volumes.read("native_to_mni")
    for scan in table["scan_id"]:
        row = volumes.row_of[scan]
        levels, native_to_mni = volumes.read("volume", row), matrices[row]
        volume = np.asarray(levels / np.float32(255), dtype=np.float32)
        on_grid = ventricle_ml(volume, affine), float((levels > 0).sum()) * voxel_ml
        fluid, brain = (native_ml(ml, native_to_mni) for ml in on_grid)
        measured.append((fluid, brain, fluid / brain))
        sizes.append((*log_scales(native_to_mni), np.log(brain)))
        coarse.append(coarsened(volume).ravel())
    return MeasuredVolumes(np.array(measured), np.array(sizes), np.stack(coarse))


def volume_features(measured: MeasuredVolumes, fit: NDArray[np.bool_]) -> Features:
    """Return `measured_volumes`, `size`, and `pca_voxels`, fitted on the scans `fit` alone."""
    features: Features = {"measured_volumes": measured.ml, SIZE: measured.size}
    if fit.sum() > 1:
        features["pca_voxels"] = fit_pca(measured.coarse[fit]).transform(measured.coarse)
    return features


def coarsened(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the volume averaged over the smallest cubes that leave MAX_PCA_VOXELS or fewer."""
    side = 1
    while volume.size / side**3 > MAX_PCA_VOXELS:
        side += 1
    padded = np.pad(volume, [(0, -n % side) for n in volume.shape])
    x, y, z = (n // side for n in padded.shape)
    cubes: NDArray[np.float32] = padded.reshape(x, side, y, side, z, side).mean(axis=(1, 3, 5))
    return cubes
