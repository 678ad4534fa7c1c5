"""Import the published LDAE as a model folder, strictly, and try it on the template."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.artefact import write_artefact
from pipeline.models.conversion.published_card import LICENCE, card_of
from pipeline.models.conversion.published_files import (
    NetworkTensors,
    Weights,
    check_weights,
    holds_encoder,
    read_decoder,
    read_encoder,
)
from pipeline.models.conversion.published_layout import (
    BRANCH,
    Names,
    branch_names,
    denoiser_names,
    encoder_name,
    encoder_names,
    encoder_of,
    has_branch,
    rename_parts,
    unet_arguments,
    unet_of,
    without_second_names,
)
from pipeline.models.conversion.published_probe import TARGET, read_probe
from pipeline.models.conversion.published_proof import prove_import
from pipeline.models.direction import FILE as DIRECTIONS
from pipeline.models.direction import write_directions
from pipeline.models.frozen import FrozenAutoencoder, load_autoencoder
from pipeline.models.ldae import build_diffusion, build_ldae
from pipeline.models.model_folder import CARD, CONFIG, METRICS, check_model_folder, read_config
from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import write_atomic, write_json
from schemas.errors import ContractError, ParamsError

SCALE = 0.8730
"""z_0 = latent · SCALE, as published."""
DIFFUSION = {
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
}
LARGEST_HALF = 65504.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFiles:
    """Files to import."""

    decoder: Path
    encoder: Path | None = None
    probe: Path | None = None
    mean: Path | None = None
    std: Path | None = None

    def statistics(self) -> tuple[Path, Path, Path] | None:
        """Return probe, mean and standard deviation, or None without a probe.

        Raises
        ------
        ParamsError
            If some are given and others are not.
        """
        given = {"--probe": self.probe, "--mean": self.mean, "--std": self.std}
        if not any(given.values()):
            return None
        absent = [name for name, path in given.items() if path is None]
        if absent or not (self.probe and self.mean and self.std):
            raise ParamsError(f"{', '.join(absent)}: needed too; a probe reads standardised y_sem")
        return self.probe, self.mean, self.std


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportChoices:
    """Choices of an import: arguments that no tensor shape gives, and how weights are stored."""

    weights: Weights = "ema"
    stage_1: bool = False
    """Import the denoiser alone, whatever else the files hold."""
    half: bool = False
    """Keep float16."""
    scale: float = SCALE
    heads: int = 1
    """Heads of the denoiser's attention."""
    encoder_heads: int = 8
    """Heads of the semantic encoder's attention."""
    steps: int = 10
    """Sampler steps of the trial on the template; 0 leaves the LDAE's part out."""


@dataclass(frozen=True, slots=True)
class ImportedLdae:
    """Result of an import."""

    kind: str
    """`ldae`, or `ldm` of stage 1 alone."""
    digest: str
    proof: dict[str, float]
    remarks: list[str]


@dataclass(slots=True)
class _PublishedModel:
    """Tensors of the files under the names of this project, with their names in the files."""

    kind: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    theirs: dict[str, str] = field(default_factory=dict)
    """Name here → name in the file."""
    config: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)


def import_ldae(
    files: ImportFiles, out: Path, *, ae: Path, device: torch.device, choices: ImportChoices
) -> ImportedLdae:
    """Write published weights as a model folder: an LDAE, or stage 1 alone (an LDM).

    Every tensor is accounted for, and no code in a file is run. Nothing is written on a refusal.

    Raises
    ------
    ContractError
        If a file is damaged or holds something else, or files do not belong together.
    ParamsError
        If options contradict each other.
    """
    check_model_folder(out, kind=None)
    statistics = files.statistics()
    autoencoder = _autoencoder(ae)
    model = _read_model(files, autoencoder, choices)
    check_model_folder(out, kind=model.kind)
    if statistics is not None and model.kind != "ldae":
        raise ParamsError("--probe: reads y_sem, so it needs --encoder")
    dim = model.config.get("encoder", {}).get("dim", 0)
    probe = None if statistics is None else read_probe(*statistics, dim=dim)
    config = model.config | {
        "fingerprint": digest_of(["imported", model.sources, model.config, autoencoder.digest]),
        "autoencoder_digest": autoencoder.digest,
        "latent_shape": list(autoencoder.latent_shape(autoencoder.grid.shape)),
        "grid": autoencoder.grid.document(),
        "imported": {"files": model.sources, "weights": choices.weights, "licence": LICENCE},
    }
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        digest = write_artefact(
            partial,
            kind=model.kind,
            tensors=model.tensors,
            config=config,
            metrics={},
            card="",
            convert=_half if choices.half else _as_it_is,
        )
        parameters = sum(tensor.numel() for tensor in model.tensors.values())
        model.tensors.clear()  # to free memory: the trial reads the written file
        if probe is not None:
            direction, readout = probe
            write_directions(
                partial / DIRECTIONS,
                {TARGET: direction},
                digests={"autoencoder": autoencoder.digest, "ldae": digest},
                readouts={TARGET: readout},
                assumed_spread=True,
                imported={"files": _sources(statistics or ()), "licence": LICENCE},
            )
        del autoencoder
        proof, remarks = prove_import(
            partial, ae, kind=model.kind, steps=choices.steps, device=device
        )
        _finish(partial, proof, parameters=parameters, remarks=remarks)
        _move(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return ImportedLdae(model.kind, digest, proof, remarks)


def _autoencoder(ae: Path) -> FrozenAutoencoder:
    if ae.is_file():
        raise ContractError(
            f"{ae}: a file; expected an autoencoder's folder, `pipeline import-ae {ae.name}` makes"
            " one"
        )
    return load_autoencoder(ae, device=torch.device("cpu"))


def _read_model(
    files: ImportFiles, autoencoder: FrozenAutoencoder, choices: ImportChoices
) -> _PublishedModel:
    """Read the files and rename their tensors, or refuse them."""
    decoder = read_decoder(files.decoder, choices.weights)
    encoder_path = None if choices.stage_1 else files.encoder
    if encoder_path is None and not choices.stage_1 and decoder.training:
        encoder_path = files.decoder if holds_encoder(files.decoder) else None
    branch = has_branch(decoder.tensors)
    if encoder_path is not None and not branch:
        raise ContractError(
            f"{decoder.path}: a decoder without its gradient branch ({BRANCH}middle_block.…), which"
            " is stage 1 alone; give decoder.pth, or leave out --encoder to import stage 1"
        )
    if encoder_path is None and branch and not choices.stage_1:
        raise ContractError(
            f"{decoder.path}: a decoder with its gradient branch needs --encoder; --stage-1 takes"
            " the denoiser alone"
        )
    model = _PublishedModel("ldm" if encoder_path is None else "ldae")
    _take_decoder(model, decoder, autoencoder, choices)
    if encoder_path is not None:
        _take_encoder(model, read_encoder(encoder_path, choices.weights), autoencoder, choices)
    _check(model, decoder.path, encoder_path)
    return model


def _take_decoder(
    model: _PublishedModel,
    decoder: NetworkTensors,
    autoencoder: FrozenAutoencoder,
    choices: ImportChoices,
) -> None:
    tensors = dict(decoder.tensors)
    if choices.stage_1:
        branch = (BRANCH, "label_emb.")
        tensors = {k: v for k, v in tensors.items() if not k.startswith(branch)}
    try:
        unet = unet_of(_shapes(tensors), heads=choices.heads)
    except ContractError as error:
        raise ContractError(f"{decoder.path}: {error}") from error
    channels = autoencoder.latent_shape(autoencoder.grid.shape)[0]
    if unet.in_channels != channels:
        raise ContractError(
            f"{decoder.path}: reads latents of {unet.in_channels} channels, those of"
            f" {autoencoder.path} have {channels}; give the autoencoder that it was trained with"
        )
    check_weights(decoder, tensors)
    names = denoiser_names(unet)
    prefix = ""
    if model.kind == "ldae":
        prefix = "diffusion."
        names = {theirs: prefix + ours for theirs, ours in names.items()} | branch_names(unet)
    _add(model, tensors, rename_parts(tensors, names), names)
    shape = (channels, 1, 1, 1)
    one = torch.ones(shape)
    kept = {"shift": torch.zeros(shape), "scale": one * choices.scale, "margin": one}
    model.tensors |= {f"{prefix}standardise.{name}": value for name, value in kept.items()}
    model.sources["decoder"] = decoder.source()
    model.config |= {
        "unet": unet_arguments(unet),
        "diffusion": DIFFUSION,
        "prediction": "epsilon",
        "statistics": list(shape),
        "posterior": "mean",
    }


def _take_encoder(
    model: _PublishedModel,
    encoder: NetworkTensors,
    autoencoder: FrozenAutoencoder,
    choices: ImportChoices,
) -> None:
    try:
        tensors = without_second_names(encoder.tensors)
        architecture = encoder_of(_shapes(tensors), heads=choices.encoder_heads)
    except ContractError as error:
        raise ContractError(f"{encoder.path}: {error}") from error
    grid = autoencoder.grid.shape
    if architecture["num_slices"] != grid[2]:
        raise ContractError(
            f"{encoder.path}: reads {architecture['num_slices']} axial slices, the grid of"
            f" {autoencoder.path} has {grid[2]}; import that with the grid it was trained on"
            f" (--shape {grid[0]} {grid[1]} {architecture['num_slices']})"
        )
    embedded = model.tensors.get("estimator.embed.weight")
    if embedded is not None and embedded.shape[1] != architecture["dim"]:
        raise ContractError(
            f"{encoder.path}: gives y_sem of {architecture['dim']} numbers, the decoder's label_emb"
            f" reads {embedded.shape[1]}; the two do not belong together"
        )
    check_weights(encoder, tensors)
    names = encoder_names(tensors)
    renamed = {f"encoder.{names.get(k, k)}": v for k, v in tensors.items()}
    model.theirs |= {f"encoder.{ours}": theirs for theirs, ours in names.items()}
    model.tensors |= renamed
    model.sources["encoder"] = encoder.source()
    model.config["encoder"] = architecture


def _add(
    model: _PublishedModel,
    before: Mapping[str, Tensor],
    renamed: Mapping[str, Tensor],
    modules: Names,
) -> None:
    model.tensors |= renamed
    model.theirs |= dict(zip(renamed, before, strict=True))
    for theirs, ours in modules.items():
        model.theirs |= {f"{ours}.{p}": f"{theirs}.{p}" for p in ("weight", "bias")}


def _check(model: _PublishedModel, decoder: Path, encoder: Path | None) -> None:
    """Compare the tensors with those of the network; name faults as in the files."""
    expected = _network(model).state_dict()
    problems: dict[Path, list[str]] = {}
    for key in sorted(expected.keys() | model.tensors.keys()):
        wrong = _problem(model.tensors.get(key), expected.get(key))
        if wrong is not None:
            of_encoder = key.startswith("encoder.") and model.kind == "ldae"
            path = encoder if of_encoder and encoder is not None else decoder
            name = model.theirs.get(key, key)
            if of_encoder and key not in model.theirs:
                name = encoder_name(key.removeprefix("encoder."))
            problems.setdefault(path, []).append(f"{name}: {wrong}")
    for path, lines in problems.items():
        raise ContractError(
            f"{path}: {len(lines)} weights do not fit the architecture: {'; '.join(lines[:5])}"
        )


def _problem(given: Tensor | None, wanted: Tensor | None) -> str | None:
    if given is None:
        return "missing"
    if wanted is None:
        return "unexpected"
    if given.shape != wanted.shape:
        return f"{tuple(given.shape)}, expected {tuple(wanted.shape)}"
    return None


def _network(model: _PublishedModel) -> nn.Module:
    """Return the network on the device `meta`, without memory for its weights."""
    with torch.device("meta"):
        if model.kind == "ldae":
            return build_ldae(model.config)
        return build_diffusion(model.config)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _half(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if tensor.numel() and float(tensor.abs().max()) > LARGEST_HALF:
        raise ContractError("--half: a weight is too large for float16; leave it out")
    return tensor.half()


def _sources(paths: tuple[Path, ...]) -> dict[str, dict[str, str]]:
    parts = (NetworkTensors(path, {}, training=False) for path in paths)
    return dict(zip(("probe", "mean", "std"), (part.source() for part in parts), strict=True))


def _finish(folder: Path, proof: dict[str, float], *, parameters: int, remarks: list[str]) -> None:
    """Write the metrics and remarks of the trial to the folder."""
    config = read_config(folder / CONFIG) | {"metrics": proof}
    write_json(folder / METRICS, proof | {"parameters": parameters})
    write_atomic(folder / CARD, card_of(config, proof, remarks, parameters=parameters))
    write_json(folder / CONFIG, config)


def _move(partial: Path, out: Path) -> None:
    """Put the finished folder in its place; its config comes last."""
    out.mkdir(parents=True, exist_ok=True)
    for name in sorted((path.name for path in partial.iterdir()), key=lambda n: n == CONFIG):
        (partial / name).replace(out / name)
