"""Inference that computes nothing twice: parts of an evaluation look at the same scans."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.models.inference import LdaeInference

MOST_BYTES = 256_000_000
"""Volumes that are kept at most; codes are small, and all of them are."""

Key = tuple[object, ...]


@dataclass(slots=True)
class Memory:
    """What was computed of latents, on the host, by the bytes that it was computed from."""

    y_sem: dict[Key, Tensor] = field(default_factory=dict)
    x_T: dict[Key, Tensor] = field(default_factory=dict)  # noqa: N815 (as in the paper)
    z_0: dict[Key, Tensor] = field(default_factory=dict)
    """Reconstructions: sampled from the y_sem and x_T of one scan."""
    own: set[Key] = field(default_factory=set)
    """y_sem and x_T of one scan."""
    scans: set[bytes] = field(default_factory=set)
    """Latents whose y_sem was asked for, and their reconstructions; not what else was sampled."""
    volumes: OrderedDict[bytes, Tensor] = field(default_factory=OrderedDict)
    """Of `scans`."""

    def keep(self, key: bytes, volume: Tensor) -> None:
        """Keep a volume, in place of those that were not asked for the longest."""
        self.volumes[key] = volume
        while sum(kept.nbytes for kept in self.volumes.values()) > MOST_BYTES:
            self.volumes.popitem(last=False)


@dataclass(frozen=True, kw_only=True)
class RememberingInference(LdaeInference):
    """An LdaeInference that remembers y_sem and x_T of latents, and the volumes of scans.

    Answers are those of the first time; they differ from those of a fresh computation by what a
    batch of another size rounds otherwise.
    """

    memory: Memory = field(default_factory=Memory, repr=False, compare=False)

    @classmethod
    def of(cls, models: LdaeInference) -> "RememberingInference":
        """Return models that remember."""
        return cls(**_fields_of(models))

    @property
    def _settings(self) -> Key:
        return (self.sampler, self.num_inference_steps, self.clip_x0, self.stop_percent)

    @torch.inference_mode()
    def embed(
        self, z_0: Float[Tensor, "B C x y z"], volumes: Float[Tensor, "B X Y Z"] | None = None
    ) -> Float[Tensor, "B D"]:
        """Return y_sem."""
        read = volumes if self.reads_volumes else None
        latents = [_digest(z) for z in z_0]
        keys = [
            (latent, None if read is None else _digest(read[row]))
            for row, latent in enumerate(latents)
        ]
        self.memory.scans.update(latents)
        embed = super().embed
        return self._known(
            self.memory.y_sem,
            keys,
            lambda rows: embed(z_0[rows], None if volumes is None else volumes[rows]),
        )

    @torch.inference_mode()
    def invert(
        self, y_sem: Float[Tensor, "B D"] | None, z_0: Float[Tensor, "B C X Y Z"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the x_T from which `sample` gives z_0."""
        settings = self._settings
        codes = [None] * len(z_0) if y_sem is None else [_digest(code) for code in y_sem]
        keys = [(_digest(z), code, *settings) for z, code in zip(z_0, codes, strict=True)]
        invert = super().invert
        x_T = self._known(
            self.memory.x_T,
            keys,
            lambda rows: invert(None if y_sem is None else y_sem[rows], z_0[rows]),
        )
        self.memory.own.update(
            (code, _digest(x), *settings) for code, x in zip(codes, x_T, strict=True) if code
        )
        return x_T

    @torch.inference_mode()
    def sample(
        self,
        y_sem: Float[Tensor, "B D"] | None,
        x_T: Float[Tensor, "B C X Y Z"],
        *,
        modes_alone: bool = False,
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return z_0 from codes; reconstructions are remembered."""
        sample = super().sample
        if y_sem is None or modes_alone:
            return sample(y_sem, x_T, modes_alone=modes_alone)
        keys = [(_digest(y), _digest(x), *self._settings) for y, x in zip(y_sem, x_T, strict=True)]
        known, own = self.memory.z_0, self.memory.own
        fresh = [row for row, key in enumerate(keys) if key not in known]
        made = dict(zip(fresh, sample(y_sem[fresh], x_T[fresh]), strict=True)) if fresh else {}
        for row in fresh:
            if keys[row] in own:
                known[keys[row]] = made[row].cpu()
                self.memory.scans.add(_digest(made[row]))
        rows = (made[row] if row in made else known[key] for row, key in enumerate(keys))
        return torch.stack([z_0.to(self.device) for z_0 in rows])

    @torch.inference_mode()
    def decode(self, z_0: Float[Tensor, "B C x y z"]) -> Float[Tensor, "B X Y Z"]:
        """Return volumes in [0, 1], on the host."""
        memory, decode = self.memory, super().decode
        keys = [_digest(z) for z in z_0]
        made = {key: memory.volumes[key] for key in keys if key in memory.volumes}
        for key in made:
            memory.volumes.move_to_end(key)
        missing = {key: row for row, key in enumerate(keys) if key not in made}
        if missing:
            fresh = decode(z_0 if len(missing) == len(keys) else z_0[list(missing.values())])
            made |= zip(missing, fresh, strict=True)
        for key in missing.keys() & memory.scans:
            memory.keep(key, made[key].clone())
        return fresh if len(missing) == len(keys) else torch.stack([made[key] for key in keys])

    def _known(
        self, known: dict[Key, Tensor], keys: Sequence[Key], compute: Callable[[list[int]], Tensor]
    ) -> Tensor:
        """Return a row for each key; those that are not known are computed together."""
        missing = {key: row for row, key in enumerate(keys) if key not in known}
        if missing:
            known |= zip(missing, compute(list(missing.values())).cpu(), strict=True)
        return torch.stack([known[key] for key in keys]).to(self.device)


def without_memory(models: LdaeInference) -> LdaeInference:
    """Return models that compute everything anew, as a measurement of speed needs them."""
    return LdaeInference(**_fields_of(models))


def _fields_of(models: LdaeInference) -> dict[str, Any]:
    return {f.name: getattr(models, f.name) for f in fields(LdaeInference)}


def _digest(row: Tensor) -> bytes:
    return hashlib.sha256(row.detach().cpu().contiguous().numpy().tobytes()).digest()
