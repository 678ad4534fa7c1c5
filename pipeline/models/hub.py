"""Models by name: hf://OWNER/REPO@REVISION, a model folder of a Hugging Face hub.

A file is never unpickled: only JSON, safetensors and Markdown are fetched. The hub's client does
not look at files that it has; every load of a model compares the weights with their digest.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import ContractError, ParamsError

FETCHED = ("config.json", "model.safetensors", "metrics.json", "directions.json", "README.md")
NAME = re.compile(
    r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<folder>[\w./-]+?))?@(?P<revision>[^#\s]+?)"
    r"(?:#(?P<sha256>[0-9a-f]{8,64}))?"
)
"""A path drops the second slash."""


@dataclass(frozen=True, slots=True)
class HubName:
    """Where a model lies on a hub."""

    repo: str
    """owner/name."""
    folder: str
    """Folder in the repository; empty for its root."""
    revision: str
    """Commit, tag or branch."""
    sha256: str
    """Start of the digest that the weights must have; empty for any."""

    def __str__(self) -> str:
        folder = f"/{self.folder}" if self.folder else ""
        return f"hf://{self.repo}{folder}@{self.revision}"


def is_hub_name(path: Path) -> bool:
    """Return whether a path is the name of a model on a hub."""
    return str(path).startswith("hf:/")


def parse_hub_name(text: str) -> HubName:
    """Return the parts of hf://OWNER/REPO[/FOLDER]@REVISION[#SHA256].

    Raises
    ------
    ParamsError
        If it has another form; a name without a revision could mean another model tomorrow.
    """
    match = NAME.fullmatch(text)
    if match is None or ".." in text:
        raise ParamsError(
            f"{text}: expected hf://OWNER/REPO@REVISION (a commit, a tag), and where wanted"
            " #SHA256 of the weights after it"
        )
    parts = {name: value or "" for name, value in match.groupdict().items()}
    return HubName(**parts)


def hub_folder(text: str) -> Path:
    """Return the local folder of a model on a hub, fetched where it is not in the cache.

    What is in the cache is used without a network; a whole commit asks for nothing at all.

    Raises
    ------
    ParamsError
        If the name has another form, or the hub's client is not installed.
    ContractError
        If it cannot be had, or is no model folder of this project.
    """
    name = parse_hub_name(text)
    root = _snapshot(name)
    folder = root / name.folder if name.folder else root
    _check(folder, name)
    return folder


def _snapshot(name: HubName) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ModuleNotFoundError as error:
        raise ParamsError(
            f"{name}: needs the hub's client; pip install 'ldae-pipeline[hub]'"
        ) from error
    wanted = [f"{name.folder}/{file}" if name.folder else file for file in FETCHED]
    try:
        return Path(snapshot_download(name.repo, revision=name.revision, allow_patterns=wanted))
    except GatedRepoError as error:
        raise ContractError(f"{name}: its owners grant access; ask, and log in first") from error
    except RevisionNotFoundError as error:
        raise ContractError(f"{name}: the repository has no such revision") from error
    except RepositoryNotFoundError as error:
        raise ContractError(f"{name}: no such repository, or a private one; log in") from error
    except LocalEntryNotFoundError as error:
        raise ContractError(
            f"{name}: not in the cache, and the hub cannot be reached; fetch it once with a network"
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ContractError(f"{name}: cannot be fetched ({reason:.160})") from error


def _check(folder: Path, name: HubName) -> None:
    try:
        config = json.loads((folder / "config.json").read_text())
        digest = str(config["weights_sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            f"{name}: no model folder of this project (config.json with weights_sha256)"
        ) from error
    if not (folder / "model.safetensors").is_file():
        raise ContractError(f"{name}: no model.safetensors in it")
    if not digest.startswith(name.sha256):
        raise ContractError(
            f"{name}: its weights have sha256 {digest[:16]}…, asked for was {name.sha256:.16}"
        )
