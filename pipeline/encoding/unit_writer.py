"""Write units of a latent store: one thread reads volumes, one encodes, one writes latents."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
import zarr

from pipeline.encoding.batch_encoder import BatchEncoder
from pipeline.encoding.latent_plan import LatentPlan
from pipeline.models.frozen import FrozenAutoencoder
from pipeline.runtime.devices import torch_threads
from pipeline.stores.build_units import EncodeSettings, take_rows
from pipeline.stores.volumes import VolumeStore

Advance = Callable[[int], None]
"""Function called with the number of scans encoded since its last call."""
Latents = dict[str, np.ndarray]
"""posterior_mean and posterior_logvar of a unit, float16 (scan, channel, x, y, z)."""


def write_units(
    plan: LatentPlan,
    units: Sequence[range],
    autoencoder: FrozenAutoencoder,
    device: torch.device,
    advance: Advance,
) -> None:
    """Encode and write units; two further threads read the next unit and write the last one."""
    if not units:
        return
    builder = plan.join_builder()
    store = VolumeStore(plan.volumes)
    earlier = [zarr.open_group(path, mode="r") for path in plan.reusable.stores]
    encoder = _UnitEncoder(plan, autoencoder, device, advance)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        ahead: Future[np.ndarray] = reader.submit(_read, store, plan.rows_to_encode(units[0]))
        written: Future[None] | None = None
        for i, unit in enumerate(units):
            volumes = ahead.result()
            if i + 1 < len(units):
                ahead = reader.submit(_read, store, plan.rows_to_encode(units[i + 1]))
            latents = _copy_reusable(plan, unit, earlier)
            settings = encoder.encode(unit, volumes, latents)
            if written is not None:
                written.result()
            written = writer.submit(builder.write, unit, latents, encode_settings=settings)
        if written is not None:
            written.result()


class _UnitEncoder:
    """Encoder of the rows of a unit, each with its settings in the plan."""

    def __init__(
        self,
        plan: LatentPlan,
        autoencoder: FrozenAutoencoder,
        device: torch.device,
        advance: Advance,
    ) -> None:
        self.plan = plan
        self.autoencoder = autoencoder
        self.device = device
        self.advance = advance
        self.largest_batch = max(settings.batch_size for settings in plan.settings)

    def encode(self, unit: range, volumes: np.ndarray, latents: Latents) -> list[EncodeSettings]:
        """Write the latents of the unit's new rows into `latents`; return the settings of all rows.

        `volumes` are those of the new rows. The batch sizes returned are those that fit in memory.
        """
        rows = self.plan.rows_to_encode(unit)
        settings = self.plan.settings[unit.start : unit.stop]
        for asked in sorted({self.plan.settings[row] for row in rows}):
            chosen = [i for i, row in enumerate(rows) if self.plan.settings[row] == asked]
            at = [rows[i] - unit.start for i in chosen]
            batch_size = min(asked.batch_size, self.largest_batch)
            encoder = BatchEncoder(
                self.autoencoder,
                batch_size=batch_size,
                precision=self.plan.precision,
                device=self.device,
            )
            with torch_threads(asked.threads):
                mean, logvar = encoder.encode(volumes[chosen], advance=self.advance)
            latents["posterior_mean"][at] = mean
            latents["posterior_logvar"][at] = logvar
            for row in at:
                settings[row] = asked._replace(batch_size=encoder.batch_size)
            if encoder.batch_size < batch_size:  # out of memory: do not try this size again
                self.largest_batch = encoder.batch_size
        return settings


def _read(store: VolumeStore, rows: list[int]) -> np.ndarray:
    """Read volumes as uint8 (scan, X, Y, Z)."""
    if not rows:
        return np.empty(0, np.uint8)
    if rows == list(range(rows[0], rows[-1] + 1)):
        return store.read("volume", slice(rows[0], rows[-1] + 1))
    return np.stack([store.read("volume", row) for row in rows])


def _copy_reusable(plan: LatentPlan, unit: range, earlier: list[zarr.Group]) -> Latents:
    """Return the arrays of a unit, with the rows of earlier stores copied and others NaN."""
    latents = {
        name: np.full((len(unit), *plan.latent_shape), np.nan, np.float16)
        for name in ("posterior_mean", "posterior_logvar")
    }
    fingerprints = plan.attributes.fingerprints
    places = [(row - unit.start, plan.reusable.rows.get(fingerprints[row])) for row in unit]
    for number, group in enumerate(earlier):
        pairs = [(at, place[1]) for at, place in places if place and place[0] == number]
        if not pairs:
            continue
        at, rows = (list(column) for column in zip(*pairs, strict=True))
        for name, values in latents.items():
            array = group[name]
            assert isinstance(array, zarr.Array)
            values[at] = take_rows(array, rows, chunks_at_once=1)
    return latents
