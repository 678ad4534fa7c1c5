"""Open a scan: one of the stores, or a new image preprocessed and encoded in the same way."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.applications.scan_names import stem_of
from pipeline.imaging.atlas.mni152 import grid_affine, mni_grid
from pipeline.imaging.bias import BiasField
from pipeline.imaging.geometry import straight_grid
from pipeline.imaging.intensities import TissueLevels
from pipeline.models.contrast import contrast_of
from pipeline.models.frozen import intensity_rule
from pipeline.models.inference import LdaeInference
from pipeline.runtime.digests import digest_image, digest_of
from pipeline.stores.latents import LatentStore
from pipeline.stores.provenance import check_same_scans
from pipeline.stores.volumes import BIAS_GRID, VolumeStore
from schemas.errors import ContractError, ScanError
from schemas.grid import GridParams, times
from schemas.params import PreprocessParams

if TYPE_CHECKING:
    from pipeline.imaging.preprocess_scan import PreprocessedScan

SAME_ZOOMS = 1e-3
"""Voxel sizes (mm) that differ by less are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeSpace:
    """The transform from a scan's own space to the grid, and its intensities, to go back."""

    native_to_mni: NDArray[np.float64]
    """(4, 4): native world to MNI152 world (mm)."""
    native_affine: NDArray[np.float64]
    """(4, 4): voxel of the file to native world (mm)."""
    native_shape: tuple[int, int, int]
    intensity_range: tuple[float, float]
    """Bias-corrected native intensities that became level 1 and 255."""
    tissue_levels: TissueLevels | None = None
    """Where grey and white matter lay between them before `intensity: landmarks` moved them."""
    bias: BiasField | None = None
    """What the native intensities were divided by; None where a store of an earlier version does
    not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputScan:
    """One scan: its latent, and its volume and native space where they are known."""

    scan_id: str
    z_0: Float[Tensor, "1 C X Y Z"]
    """Standardised posterior mean."""
    volume: NDArray[np.float32] | None
    """Preprocessed, (X, Y, Z) in [0, 1]; None where only its latent is at hand."""
    native: NativeSpace | None
    record: dict[str, Any]
    """Where it came from."""
    file: Path | None = None
    """The image, where it was read just now."""

    @property
    def encoder_volume(self) -> Float[Tensor, "1 X Y Z"] | None:
        """Return the volume for a semantic encoder that reads volumes."""
        return None if self.volume is None else torch.from_numpy(self.volume)[None]


def encoder_volumes(*scans: InputScan) -> Float[Tensor, "B X Y Z"] | None:
    """Return the volumes of scans for a semantic encoder that reads them, if all have one."""
    volumes = [scan.encoder_volume for scan in scans if scan.encoder_volume is not None]
    return torch.cat(volumes) if len(volumes) == len(scans) else None


def scan_from_store(
    scan_id: str, models: LdaeInference, latents: LatentStore, volumes: VolumeStore | None
) -> InputScan:
    """Return a scan of the stores. Without `volumes` it has no way back to native space.

    Raises
    ------
    ContractError
        If the scan is in neither store, or the stores do not belong to the models.
    """
    check_latents(latents, models)
    z_0 = models.standardise(latents.load([scan_id]).mean)
    volume, native = None, None
    if volumes is not None:
        if scan_id not in volumes.row_of:
            raise ContractError(f"{volumes.path}: {scan_id} is not in it; is it the same study's?")
        check_same_scans(latents, volumes, [scan_id])
        row = volumes.read_row(volumes.row_of[scan_id])
        volume = unit_interval(row.volume)
        if not _is_syn(volumes):
            samples = np.linalg.inv(row.native_to_mni) @ grid_affine(BIAS_GRID)
            bias = BiasField(row.log_bias.astype(np.float32), samples)
            x, y, z = (int(size) for size in row.native_shape)
            # Stores of earlier versions keep the sheared axes of a header, which no qform holds.
            native_affine, native_shape = straight_grid(row.native_affine, (x, y, z))
            native = NativeSpace(
                native_to_mni=row.native_to_mni,
                native_affine=native_affine,
                native_shape=native_shape,
                intensity_range=(float(row.intensity_range[0]), float(row.intensity_range[1])),
                tissue_levels=TissueLevels(*row.tissue_levels) if row.tissue_levels.any() else None,
                bias=bias if volumes.has_bias else None,
            )
    record = identity_in_store(scan_id, latents, volumes)
    return InputScan(scan_id=scan_id, z_0=z_0, volume=volume, native=native, record=record)


def identity_in_store(
    scan_id: str, latents: LatentStore, volumes: VolumeStore | None
) -> dict[str, Any]:
    """Return the record of a scan of the stores: its origin and fingerprint."""
    return {
        "kind": "store",
        "latents": str(latents.path),
        "volumes": None if volumes is None else str(volumes.path),
        "fingerprint": latents.attributes.fingerprints[latents.row_of[scan_id]],
    }


def identity_of_file(path: Path, params: PreprocessParams) -> dict[str, Any]:
    """Return the record of an image file: its digest, and how it is preprocessed."""
    return {
        "kind": "file",
        "path": str(path),
        "sha256": digest_image(path),
        "preprocess": params.recorded(),
    }


def check_latents(latents: LatentStore, models: LdaeInference) -> None:
    """Refuse latents of another autoencoder or shape.

    Raises
    ------
    ContractError
        Naming the store.
    """
    if latents.attributes.digests.get("autoencoder") != models.autoencoder.digest:
        raise ContractError(
            f"{latents.path}: encoded by another autoencoder than --ae; give that one, or encode"
        )
    if latents.latent_shape != models.latent_shape:
        raise ContractError(
            f"{latents.path}: latents of {times(latents.latent_shape)}, the models are on a grid of"
            f" {times(models.latent_shape)}; give stores of one study"
        )


def scan_from_file(path: Path, models: LdaeInference, params: PreprocessParams) -> InputScan:
    """Return a new image, preprocessed and encoded as the scans of the stores were.

    Raises
    ------
    ScanError
        If the file cannot be used or fails quality control.
    """
    from pipeline.imaging.preprocess_scan import preprocess_scan

    try:
        scan = preprocess_scan(path, params, device=str(models.device))
    except ScanError as error:
        raise ScanError(f"{path}: {error}") from error
    except Exception as error:
        # Registration and stripping fail in ways of their own on images that are no head.
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise ScanError(f"{path}: preprocessing failed: {type(error).__name__}: {first}") from error
    if scan.qc["status"] == "fail":
        raise ScanError(
            f"{path}: fails quality control ({scan.qc['reasons']}); expected a"
            f" {params.contrast or 'T1w'} head, see `pipeline preprocess` for its thresholds"
        )
    volume = unit_interval(scan.volume)
    return InputScan(
        scan_id=stem_of(path),
        z_0=models.encode(torch.from_numpy(volume)[None]),
        volume=volume,
        native=None if params.registration == "syn" else native_space_of(scan),
        record=identity_of_file(path, params) | {"qc": scan.qc},
        file=path,
    )


def native_space_of(scan: "PreprocessedScan") -> NativeSpace:
    """Return the native space of a scan that was preprocessed just now."""
    return NativeSpace(
        native_to_mni=scan.native_to_mni,
        native_affine=scan.native_affine,
        native_shape=scan.native_shape,
        intensity_range=scan.intensity_range,
        tissue_levels=scan.tissue_levels,
        bias=scan.bias,
    )


def preprocessing_for(
    models: LdaeInference,
    default: PreprocessParams,
    *,
    volumes: VolumeStore | None,
    latents: LatentStore | None,
) -> PreprocessParams:
    """Return the preprocessing of a new image that makes it like those of the stores.

    The volume store's own parameters where it is given, else `default`, on the grid of the
    autoencoder; QC thresholds are those of `default`.

    Raises
    ------
    ContractError
        If the grid is none of preprocessing's, or the parameters are not those of the latents.
    """
    from pipeline.imaging.preprocess_scan import METHOD_VERSION

    grid = models.autoencoder.grid.as_params()
    if not mni_grid(grid).same_voxels(models.autoencoder.grid):
        raise ContractError(
            "--ae: its grid is not one that `pipeline preprocess` makes, so a new image cannot be"
            " brought onto it; give a scan of a store with --scan"
        )
    params = default.model_copy(update=intensity_rule(models.autoencoder.config))
    if volumes is None and params.contrast is None:
        trained = contrast_of(models.ldae.config)
        params = params.model_copy(update={"contrast": None if trained == "T1w" else trained})
    if volumes is not None and "preprocess" in volumes.attributes.params:
        recorded = PreprocessParams.model_validate(volumes.attributes.params["preprocess"])
        if not _same_grid(recorded.grid, grid):
            raise ContractError(
                f"{volumes.path}: volumes of {_size(recorded.grid)}, those of --ae have"
                f" {_size(grid)}; give the volumes of the models' own study"
            )
        params = recorded.model_copy(update={"qc": default.qc, "max_bytes": default.max_bytes})
    params = params.model_copy(update={"grid": grid})
    digest = digest_of([params.content(), METHOD_VERSION])
    if latents is not None and latents.attributes.digests.get("preprocessing") != digest:
        raise ContractError(
            f"{latents.path}: preprocessed in another way than the new image would be; give the"
            " study's --volumes (or its --params)"
        )
    return params


def unit_interval(volume: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a stored volume in [0, 1]."""
    return np.asarray(volume / np.float32(255), dtype=np.float32)


def _same_grid(one: GridParams, other: GridParams) -> bool:
    return one.shape == other.shape and abs(one.zooms - other.zooms) < SAME_ZOOMS


def _size(grid: GridParams) -> str:
    return f"{'×'.join(map(str, grid.shape))} voxels of {grid.zooms:g} mm"


def _is_syn(volumes: VolumeStore) -> bool:
    params: dict[str, Any] = volumes.attributes.params.get("preprocess", {})
    return params.get("registration") == "syn"
