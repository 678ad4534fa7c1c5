"""Reconstruct scans that no network was trained on, in every way there is, and judge each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.compute import Progress, seed_from, write_atomic, write_json
from pipeline.diffusion.samplers import Model, invert, sample
from pipeline.evaluation.bootstrap import paired_difference
from pipeline.evaluation.metrics import (
    latent_health,
    reconstruction_metrics,
    summarise_reconstruction,
)
from pipeline.frozen import FrozenAutoencoder, FrozenLdae
from pipeline.stores.latents import LatentStore
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ContractError
from schemas.params import EvaluateParams

METHODS = ("ae", "ldae", "lddim", "ldae_y_sem_only", "ldae_other_y_sem")
"""AE alone; LDAE with inverted x_T; the denoiser alone with inverted x_T (LDDIM); y_sem with random
x_T; and the control for that: another subject's y_sem with the same random x_T."""
EXAMPLES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstructor:
    """Everything needed to take one scan apart and put it together again."""

    volumes: VolumeStore
    latents: LatentStore
    autoencoder: FrozenAutoencoder
    ldae: FrozenLdae
    params: EvaluateParams
    device: torch.device

    def _sample(self, model: Model, x_T: Tensor) -> Float[Tensor, "B 1 X Y Z"]:
        diffusion = self.ldae.net.diffusion
        z_0 = sample(
            model,
            x_T,
            diffusion.schedule,
            sampler=self.params.sampler,
            num_inference_steps=self.params.num_inference_steps,
            clip_x0=self.params.clip_x0,
        )
        return self._decode(z_0)

    def _decode(self, z_0: Tensor) -> Float[Tensor, "B 1 X Y Z"]:
        return self.autoencoder.net.decode(self.ldae.net.diffusion.standardise.inverse(z_0))

    def _invert(self, model: Model, z_0: Tensor) -> Tensor:
        return invert(
            model,
            z_0,
            self.ldae.net.diffusion.schedule,
            sampler=self.params.sampler,
            num_inference_steps=self.params.num_inference_steps,
            clip_x0=self.params.clip_x0,
        )

    def embed(self, scan_ids: list[str]) -> Float[Tensor, "B D"]:
        """Return y_sem of scans."""
        return self.ldae.net.embed(
            self.z_0(scan_ids), lambda: self.volumes.load_unit_interval(scan_ids).to(self.device)
        )

    def _model(self, y_sem: Tensor) -> Model:
        return self.ldae.net.model(y_sem, stop_percent=self.params.stop_percent)

    def reference(self, scan_id: str) -> Float[Tensor, "1 1 X Y Z"]:
        """Return the preprocessed volume."""
        row = self.volumes.row_of[scan_id]
        volume = self.volumes.read_unit_interval(slice(row, row + 1))
        return torch.from_numpy(volume).to(self.device)

    def z_0(self, scan_ids: list[str]) -> Float[Tensor, "B C X Y Z"]:
        """Return the standardised posterior means of scans."""
        loaded = self.latents.load(scan_ids, device=self.device)
        z_0: Tensor = self.ldae.net.diffusion.standardise(loaded.mean.float())
        return z_0

    def random_noise(self, scan_ids: list[str], shape: torch.Size) -> Float[Tensor, "B C X Y Z"]:
        """Return noise that depends on each scan's id alone, not on what shares its batch."""
        drawn = []
        for scan_id in scan_ids:
            seed = seed_from("x_T", self.params.seed, scan_id)
            generator = torch.Generator(self.device).manual_seed(seed)
            drawn.append(torch.randn(shape[1:], generator=generator, device=self.device))
        return torch.stack(drawn)

    @torch.inference_mode()
    def reconstruct(
        self, scan_ids: list[str], other_ids: list[str] | None
    ) -> tuple[dict[str, Float[Tensor, "B 1 X Y Z"]], Float[Tensor, "B C X Y Z"]]:
        """Return each method's volumes, and the inverted x_T.

        `other_ids` are scans of other subjects, or None where there is one subject only.
        """
        net, z_0 = self.ldae.net, self.z_0(scan_ids)
        y_sem = self.embed(scan_ids)
        x_T = self._invert(self._model(y_sem), z_0)
        noise = self.random_noise(scan_ids, z_0.shape)
        starts = {"ldae": (x_T, y_sem), "ldae_y_sem_only": (noise, y_sem)}
        if other_ids is not None:
            starts["ldae_other_y_sem"] = (noise, self.embed(other_ids))
        conditions = torch.cat([y for _, y in starts.values()])
        sampled = self._sample(self._model(conditions), torch.cat([x for x, _ in starts.values()]))
        made = {
            "ae": self._decode(z_0),
            "lddim": self._sample(net.model(None), self._invert(net.model(None), z_0)),
        }
        return made | dict(zip(starts, sampled.chunk(len(starts)), strict=True)), x_T


def evaluate_reconstruction(
    reconstructor: Reconstructor, manifest: pd.DataFrame, out: Path
) -> dict[str, Any]:
    """Write metrics.json, per_scan.csv and examples.npz to `out`; return the metrics.

    Raises
    ------
    ContractError
        If the split holds no scan of the stores, or the stores do not belong together.
    """
    params = reconstructor.params
    chosen = manifest[
        (manifest["split"] == params.split)
        & manifest["scan_id"].isin(reconstructor.latents.row_of)
        & manifest["scan_id"].isin(reconstructor.volumes.row_of)
    ].head(params.max_scans)
    if chosen.empty:
        raise ContractError(
            f"{reconstructor.latents.path}: no scan of the {params.split} split; check the"
            " manifest and the quarantine list, or set evaluate.split"
        )
    rows, noises = [], []
    examples: dict[str, list[np.ndarray]] = {}
    pairs = list(_with_other_subject(chosen))
    with Progress("evaluate", total=len(pairs)) as bar:
        for start in range(0, len(pairs), params.batch_size):
            batch = pairs[start : start + params.batch_size]
            scan_ids = [str(scan["scan_id"]) for scan, _ in batch]
            others = [other for _, other in batch if other is not None]
            made, x_T = reconstructor.reconstruct(scan_ids, others or None)
            noises.append(x_T.cpu())
            for i, (scan, _) in enumerate(batch):
                own = {method: volumes[i : i + 1].float() for method, volumes in made.items()}
                reference = reconstructor.reference(scan_ids[i])
                rows += _figures(scan, reference, own, x_T[i : i + 1])
                if len(examples.get("scan_id", [])) < EXAMPLES:
                    _keep_example(examples, scan_ids[i], reference, own)
                bar.advance()
    per_scan = pd.DataFrame(rows)
    metrics = {
        "split": params.split,
        "scans": len(chosen),
        "sampler": params.sampler,
        "num_inference_steps": params.num_inference_steps,
        "reconstruction": summarise_reconstruction(
            per_scan, draws=params.bootstrap, seed=params.seed
        ),
        "inversion": latent_health(torch.cat(noises)),
        "differences": _differences(per_scan, params),
    }
    write_atomic(out / "per_scan.csv", per_scan.to_csv(index=False))
    _write_examples(out / "examples.npz", examples)
    write_json(out / "metrics.json", metrics)
    return metrics


def _figures(
    scan: pd.Series, reference: Tensor, made: dict[str, Tensor], x_T: Tensor
) -> list[dict[str, Any]]:
    """Return one row a method of a scan's figures."""
    health = {f"x_T_{k}": v for k, v in latent_health(x_T).items()}
    rows = []
    for method in METHODS:
        if method in made:
            figures = reconstruction_metrics(reference, made[method], reference > 0)
            row: dict[str, Any] = {key: scan[key] for key in ("scan_id", "subject_id")}
            row |= {"method": method} | {str(k): v for k, v in figures.iloc[0].items()}
            rows.append(row | (health if method == "ldae" else {}))
    return rows


def _with_other_subject(chosen: pd.DataFrame) -> Iterator[tuple[pd.Series, str | None]]:
    """Pair every scan with the next scan, cyclically, of another subject."""
    records = [row for _, row in chosen.iterrows()]
    for i, scan in enumerate(records):
        ahead = records[i + 1 :] + records[:i]
        others = (str(o["scan_id"]) for o in ahead if o["subject_id"] != scan["subject_id"])
        yield scan, next(others, None)


def _differences(per_scan: pd.DataFrame, params: EvaluateParams) -> dict[str, Any]:
    """Return paired SSIM differences inside the brain with subject-bootstrap intervals."""
    wide = per_scan.pivot_table(
        index=["subject_id", "scan_id"], columns="method", values="ssim_brain"
    )
    pairs = {
        "ldae_minus_ae": ("ldae", "ae"),
        "own_minus_other_y_sem": ("ldae_y_sem_only", "ldae_other_y_sem"),
    }
    return {
        name: paired_difference(
            wide[a].to_numpy(),
            wide[b].to_numpy(),
            wide.index.get_level_values("subject_id").to_numpy(),
            draws=params.bootstrap,
            seed=params.seed,
        ).model_dump()
        for name, (a, b) in pairs.items()
        if {a, b} <= set(wide) and wide[[a, b]].notna().all().all()
    }


def _keep_example(
    examples: dict[str, list[np.ndarray]],
    scan_id: str,
    reference: Tensor,
    made: dict[str, Tensor],
) -> None:
    examples.setdefault("scan_id", []).append(np.asarray(scan_id))
    for name, volume in {"reference": reference, **made}.items():
        if name in ("reference", "ae", "ldae", "ldae_y_sem_only"):
            clipped = volume[0, 0].float().clamp(0, 1).cpu().numpy()
            examples.setdefault(name, []).append(clipped.astype(np.float16))


def _write_examples(path: Path, examples: dict[str, list[np.ndarray]]) -> None:
    partial = path.with_name(f".{path.stem}.partial.npz")
    stacked: dict[str, Any] = {name: np.stack(values) for name, values in examples.items()}
    np.savez_compressed(partial, **stacked)
    partial.replace(path)
