"""Make the damaged record of a latent store again, where what is left proves what it was."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr

from pipeline import __version__
from pipeline.encoding.run import plan_latents
from pipeline.models.frozen import FrozenAutoencoder
from pipeline.runtime.files import write_atomic, writing_to
from pipeline.stores.build_units import Made, content_digest
from pipeline.stores.builder import StoreBuilder
from pipeline.stores.latents import latent_arrays
from pipeline.stores.volumes import VolumeStore
from schemas.params import EncodeParams
from schemas.stores import StoreAttributes

MAX_DIFFERENCE = 16
"""Bytes by which a damaged record may differ from the one made again. All other digests of the
scans' content then agree, which no other store's would."""
DEFAULT_MADE = Made(batch_size=4, threads=1)
"""Where a store does not say."""


def restore_record(
    path: Path, volumes: VolumeStore, autoencoder: FrozenAutoencoder, shape: tuple[int, ...]
) -> bool:
    """Write the group's zarr.json again from volumes, autoencoder and chunks; tell whether it was.

    It is written only if it differs from what is there in a few bytes, so that it is proven to be
    the old one. That takes chunks that are whole.
    """
    damaged = (path / "zarr.json").read_bytes()
    try:
        arrays = {
            name: zarr.open_array(path / name, mode="r")
            for name in ("posterior_mean", "posterior_logvar")
        }
        content = _unit_digests(arrays, len(volumes), shape)
    except (ValueError, RuntimeError, OSError, KeyError):
        return False
    for precision in ("fp32", "bf16"):
        params = EncodeParams(chunk_scans=arrays["posterior_mean"].chunks[0], precision=precision)
        attributes = plan_latents(volumes, autoencoder, params, precision)
        for made in _records(attributes, shape, params.chunk_scans, content, damaged):
            if _distance(made, damaged) <= MAX_DIFFERENCE:
                with writing_to(path):
                    write_atomic(path / "zarr.json", made)
                return True
    return False


def _unit_digests(
    arrays: dict[str, zarr.Array[Any]], count: int, shape: tuple[int, ...]
) -> list[str]:
    """Return the digest of every unit.

    Raises
    ------
    ValueError
        If a chunk is damaged or missing, or the arrays are not those of `count` scans.
    """
    if any(array.shape != (count, *shape) for array in arrays.values()):
        raise ValueError("other arrays")
    digests, rows = [], arrays["posterior_mean"].chunks[0]
    for start in range(0, count, rows):
        unit = {name: np.asarray(array[start : start + rows]) for name, array in arrays.items()}
        if not all(np.isfinite(values).all() for values in unit.values()):
            raise ValueError("a chunk is missing")
        digests.append(content_digest(unit))
    return digests


def _records(
    attributes: StoreAttributes,
    shape: tuple[int, ...],
    rows: int,
    digests: list[str],
    damaged: bytes,
) -> Iterator[bytes]:
    """Yield what the zarr.json may have been; what only it says is read from the remains."""
    text = damaged.decode(errors="replace")
    made_by = re.search(r'"made_by": "([^"]*)"', text)
    count = len(attributes.scan_ids)
    guesses = product(
        _guesses(text, "batch_sizes", count, DEFAULT_MADE.batch_size),
        _guesses(text, "threads", count, DEFAULT_MADE.threads),
    )
    columns = [dict(zip(("batch_sizes", "threads"), pair, strict=True)) for pair in guesses]
    own = f"ldae-pipeline {__version__}"
    with TemporaryDirectory() as folder:
        for maker in {made_by[1] if made_by else own, own}:
            changed = attributes.model_copy(update={"made_by": maker})
            arrays = latent_arrays(shape, rows_per_chunk=rows)
            made = StoreBuilder(Path(folder) / "s.zarr", changed, arrays, unit_rows=rows)
            for guess in columns:
                units = {"rows": rows, "sha256": digests} | guess
                made.group.attrs.put(made.sealed(changed, units))
                yield made.metadata()


def _guesses(text: str, name: str, count: int, default: int) -> list[list[int]]:
    """Return what a list with a number for each scan may have been: as read, or all the usual."""
    listed = re.search(rf'"{name}": \[([\d\s,]*)\]', text)
    read = [int(number) for number in re.findall(r"\d+", listed[1])] if listed else []
    usual = Counter(read).most_common(1)[0][0] if read else default
    return [read, [usual] * count]


def _distance(one: bytes, other: bytes) -> int:
    """Return in how many places two files differ; their lengths must not."""
    if len(one) != len(other):
        return max(len(one), len(other))
    return int((np.frombuffer(one, np.uint8) != np.frombuffer(other, np.uint8)).sum())
