"""volumes.zarr: preprocessed volumes on the MNI grid, each with the way back to its file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from zarr.codecs import Crc32cCodec, ZstdCodec

from pipeline.stores.builder import ArraySpec, StoreBuilder
from pipeline.stores.open_store import OpenStore
from schemas.grid import GridParams
from schemas.stores import StoreAttributes

if TYPE_CHECKING:  # preprocessing writes volumes without torch, which takes seconds to import
    from jaxtyping import Float
    from torch import Tensor

ROWS_PER_SHARD = 16
ROWS_PER_SMALL_CHUNK = 1024
BIAS_GRID = GridParams(shape=(18, 22, 18), zooms=12.0)
"""Grid of the bias fields, on any grid of the volumes; N4's knots lie 25 mm apart."""

LANDMARKS = "tissue_levels"
"""Array that only stores with `preprocess.intensity: landmarks` have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRow:
    """One preprocessed scan."""

    volume: np.ndarray
    """uint8 (X, Y, Z): 0 outside the brain, 1 to 255 inside."""
    native_to_mni: np.ndarray
    """float64 (4, 4): native world (mm) to MNI152 world (mm)."""
    native_affine: np.ndarray
    """float64 (4, 4): native voxel to native world (mm)."""
    native_shape: np.ndarray
    """int32 (3,)."""
    intensity_range: np.ndarray
    """float64 (2,): native intensities mapped to 0 and 1."""
    tissue_levels: np.ndarray = field(default_factory=lambda: np.zeros(2))
    """float64 (2,): levels of grey and white matter before `intensity: landmarks` moved them; zeros
    where they were left."""
    log_bias: np.ndarray = field(default_factory=lambda: np.zeros(BIAS_GRID.shape, np.float16))
    """float16, on BIAS_GRID: logarithm of the field that native intensities were divided by."""


def _landmarks() -> ArraySpec:
    return ArraySpec(
        name=LANDMARKS,
        row_shape=(2,),
        dtype="float64",
        dimension_names=("tissue",),
        rows_per_chunk=ROWS_PER_SMALL_CHUNK,
        compressors=(Crc32cCodec(),),
        fill_value=float("nan"),
    )


def _arrays(shape: tuple[int, ...]) -> list[ArraySpec]:
    small: dict[str, Any] = {
        "rows_per_chunk": ROWS_PER_SMALL_CHUNK,
        "compressors": (Crc32cCodec(),),
    }
    return [
        ArraySpec(
            name="volume",
            row_shape=shape,
            dtype="uint8",
            dimension_names=("x", "y", "z"),
            rows_per_chunk=1,
            rows_per_shard=ROWS_PER_SHARD,
            compressors=(ZstdCodec(level=3), Crc32cCodec()),
        ),
        ArraySpec(
            name="native_to_mni",
            row_shape=(4, 4),
            dtype="float64",
            dimension_names=("to", "from"),
            **small,
        ),
        ArraySpec(
            name="native_affine",
            row_shape=(4, 4),
            dtype="float64",
            dimension_names=("to", "from"),
            **small,
        ),
        ArraySpec(
            name="native_shape", row_shape=(3,), dtype="int32", dimension_names=("axis",), **small
        ),
        ArraySpec(
            name="intensity_range",
            row_shape=(2,),
            dtype="float64",
            dimension_names=("bound",),
            **small,
        ),
        ArraySpec(
            name="log_bias",
            row_shape=BIAS_GRID.shape,
            dtype="float16",
            dimension_names=("x", "y", "z"),
            rows_per_chunk=ROWS_PER_SHARD,
            fill_value=float("nan"),  # no field at all, zero everywhere, is written too
            compressors=(ZstdCodec(level=3), Crc32cCodec()),
        ),
    ]


def write_volumes(out: Path, attributes: StoreAttributes, rows: Iterator[VolumeRow]) -> None:
    """Write a volume store from rows in the order of attributes.scan_ids.

    The store appears under `out` only when it is complete. Hold `lock_store(out)` around it.
    """
    arrays = _arrays(attributes.grid.shape)
    if attributes.params.get("preprocess", {}).get("intensity") == "landmarks":
        arrays.append(_landmarks())
    builder = StoreBuilder(out, attributes, arrays, unit_rows=ROWS_PER_SHARD)
    pending = {unit.start for unit in builder.pending()}
    for start in range(0, builder.num_rows, ROWS_PER_SHARD):
        unit = list(islice(rows, ROWS_PER_SHARD))
        if start in pending:
            content = {a.name: np.stack([getattr(row, a.name) for row in unit]) for a in arrays}
            builder.write(range(start, start + len(unit)), content)
    builder.finish()


class VolumeStore(OpenStore):
    """An open volumes.zarr."""

    remedy = "give the volumes that the latents were made of"

    def __init__(self, path: Path) -> None:
        super().__init__(path, kind="volumes")

    def read_row(self, index: int) -> VolumeRow:
        """Read one scan."""
        names = VolumeRow.__dataclass_fields__
        return VolumeRow(**{name: self.read(name, index) for name in names if name in self.group})

    @property
    def has_bias(self) -> bool:
        """Whether the store holds bias fields; stores of earlier versions do not."""
        return "log_bias" in self.group

    def read_unit_interval(self, rows: slice) -> np.ndarray:
        """Read volumes as float32 (scan, 1, X, Y, Z) in [0, 1]."""
        return self.read("volume", rows)[:, None].astype(np.float32) / 255

    def load_unit_interval(self, scan_ids: Sequence[str]) -> "Float[Tensor, 'B 1 X Y Z']":
        """Load the volumes of these scans, in [0, 1].

        Raises
        ------
        ContractError
            If a scan is not in the store.
        """
        import torch

        volumes = (self.read("volume", row) for row in self.rows_of(scan_ids))
        return torch.stack([torch.from_numpy(volume) for volume in volumes])[:, None].float() / 255


def open_volumes(path: Path) -> VolumeStore:
    """Open a complete volume store for reading."""
    return VolumeStore(path)
