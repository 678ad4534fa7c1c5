"""Read the tensors of a checkpoint file without running any code in it."""

import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pipeline.runtime.digests import digest_file
from schemas.errors import ContractError
from schemas.grid import Grid

BLOCK_KEY = re.compile(r"^(.*?)(?:encoder|decoder)\.blocks\.\d+\.")
COMPVIS_KEY = re.compile(r"(?:encoder\.down|decoder\.up)\.\d+\.block\.")
DEFINITIONS = ("autoencoder_def", "autoencoder", "network_def", "network", "architecture")
"""Keys under which configs of MONAI bundles, and of this project, describe the network."""

BLOCK = 1 << 22
"""Bytes that are read at once to be checked."""
NO_CHECKPOINT = "not a checkpoint; expected .safetensors, .pt, .pth or .ckpt"
READER_ERRORS = (
    SafetensorError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
    AssertionError, OSError, struct.error,
)  # fmt: skip
"""Errors that readers raise for a damaged or other file: text is read as a pickle."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of one autoencoder under their names in the file, and its config."""

    path: Path
    tensors: dict[str, Tensor]
    definition: dict[str, Any]
    """Arguments of AutoencoderKL from a config; {} without one."""
    grid: Grid | None = None
    """Grid that it was trained on, if a config records it."""


def read_checkpoint(path: Path, *, config: Path | None, prefix: str | None) -> Checkpoint:
    """Read a checkpoint file (.pt, .pth, .ckpt, .safetensors) or the folder of a MONAI bundle.

    Raises
    ------
    ContractError
        If there is no such file, it holds more than tensors, no AutoencoderKL, or more than one
        and `prefix` selects none.
    """
    weights, bundle_config = _bundle(path) if path.is_dir() else (path, None)
    values = _json(config or bundle_config)
    recorded = _json(bundle_config).get("weights_sha256") if bundle_config else None
    if recorded is not None and recorded != digest_file(weights):
        raise ContractError(
            f"{weights}: damaged, its sha256 differs from {bundle_config}; restore it"
        )
    tensors = load_tensors(weights)
    check_sums(weights)
    return Checkpoint(
        weights, _of_autoencoder(weights, tensors, prefix), _definition(values), _grid(values)
    )


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return every tensor of a file under its dotted name.

    Raises
    ------
    ContractError
        If there is no such file, or it holds code or objects beside tensors.
    """
    return dict(_flat(_load(path)))


def _load(path: Path) -> Any:
    if not path.is_file():
        raise ContractError(f"{path}: no such file; give a checkpoint or a bundle's folder")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():  # a plain pickle's protocol
            warnings.simplefilter("ignore")
            # Tensors stay in the file until they are used; a plain pickle has no such form.
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None and (fault := _no_container(path)):
            raise ContractError(f"{path}: {fault}") from error
        request = f"it asks for {named[1]}" if named else "its pickle asks for more"
        raise ContractError(
            f"{path}: holds code or objects beside tensors ({request}); not loaded. Where it was"
            " made, save its state_dict alone: torch.save(torch.load(FILE,"
            " weights_only=False)['state_dict'], 'weights.pth')"
        ) from error
    except READER_ERRORS as error:
        if path.suffix != ".safetensors" and (fault := _no_container(path)):
            raise ContractError(f"{path}: {fault}") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ContractError(f"{path}: no readable checkpoint ({reason:.100})") from error


def check_sums(path: Path) -> None:
    """Refuse a zip archive (.pt, .pth, .ckpt) of which some bytes have changed since it was saved.

    Reading tensors in place does not compare them with their checksums. Archives that were saved
    without checksums, and other files, pass.

    Raises
    ------
    ContractError
        Naming the file.
    """
    if path.suffix == ".safetensors" or not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        sound = [_sound(archive, name) for name in archive.namelist()]
    if any(sound) and not all(sound):
        raise ContractError(
            f"{path}: damaged, {sound.count(False)} of {len(sound)} parts differ from their"
            " checksums; get the file again"
        )


def _sound(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        with archive.open(name) as part:
            while part.read(BLOCK):
                pass
    except (zipfile.BadZipFile, OSError):
        return False
    return True


def _no_container(path: Path) -> str | None:
    """Return why a file is neither a zip archive nor a pickle of protocol 2 or later, or None."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        return None  # the error of the operating system is clearer
    if zipfile.is_zipfile(path) or (start[:1] == b"\x80" and start[1:] <= b"\x05"):
        return None
    return "no readable checkpoint (a zip archive cut short)" if start == b"PK" else NO_CHECKPOINT


def _flat(values: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor below nested dictionaries with its dotted name."""
    if isinstance(values, Tensor):
        yield name, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key))


def _of_autoencoder(
    path: Path, tensors: dict[str, Tensor], prefix: str | None
) -> dict[str, Tensor]:
    prefixes = sorted({m[1] for key in tensors if (m := BLOCK_KEY.match(key))})
    if not prefixes:
        if any(COMPVIS_KEY.search(key) for key in tensors):
            raise ContractError(
                f"{path}: an autoencoder in the layout of MedVAE and Stable Diffusion"
                " (encoder.down.…), which cannot be imported: its decoder has one residual block a"
                " level more than MONAI's AutoencoderKL"
            )
        shown = ", ".join(list(tensors)[:3]) or "no tensor at all"
        raise ContractError(f"{path}: no AutoencoderKL (encoder.blocks.…) in it, but {shown}")
    if prefix is None and len(prefixes) > 1:
        raise ContractError(
            f"{path}: {len(prefixes)} autoencoders in it; choose one with --prefix:"
            f" {', '.join(repr(p) for p in prefixes)}"
        )
    chosen = prefixes[0] if prefix is None else prefix
    picked = {k.removeprefix(chosen): v for k, v in tensors.items() if k.startswith(chosen)}
    if not any(BLOCK_KEY.match(key) for key in picked):
        raise ContractError(f"{path}: no autoencoder under --prefix {chosen}; there is {prefixes}")
    return picked


def _bundle(folder: Path) -> tuple[Path, Path | None]:
    """Return the weights and the config of a MONAI bundle, or of a model folder."""
    models = folder / "models" if (folder / "models").is_dir() else folder
    files = sorted(f for f in models.iterdir() if f.suffix in (".pt", ".pth", ".safetensors"))
    named = [f for f in files if f.name.startswith(("autoencoder", "model."))] or files
    if not named:
        raise ContractError(f"{folder}: no weights (.pt, .pth, .safetensors) in it or its models/")
    configs = (folder / "configs" / "inference.json", folder / "config.json")
    return named[0], next((c for c in configs if c.is_file()), None)


def _json(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: not a readable JSON file ({error!s:.100})") from error
    if not isinstance(values, dict):
        raise ContractError(f"{path}: expected an object with the arguments of AutoencoderKL")
    return values


def _definition(values: dict[str, Any]) -> dict[str, Any]:
    for name in DEFINITIONS:
        if isinstance(values.get(name), dict):
            return dict(values[name])
    return values if {"channels", "num_channels"} & values.keys() else {}


def _grid(values: dict[str, Any]) -> Grid | None:
    try:
        return Grid.model_validate(values.get("grid"))
    except ValidationError:
        return None
