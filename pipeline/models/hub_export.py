"""Write a model folder as one uploads it to a hub: weights, config, and a card with metadata."""

from pathlib import Path

import yaml

from pipeline.models.artefact import read_artefact
from pipeline.models.model_folder import CARD, CONFIG, METRICS, WEIGHTS, check_model_folder
from pipeline.runtime.files import write_atomic, writing_to

TAGS = ("mri", "brain", "latent-diffusion", "autoencoder")
FENCE = "---\n"


def write_hub_folder(
    model: Path, out: Path, *, kind: str, licence: str, card: str | None = None
) -> int:
    """Copy a model byte for byte, the config last; return the size of its weights (bytes).

    The digest of the weights stays, so the model is the same under `hf://` as in its study. `card`
    replaces the model's card; metadata are put above it.

    Raises
    ------
    ContractError
        If the model is damaged or of another kind, or `out` holds other files.
    """
    check_model_folder(out, kind=kind)
    artefact = read_artefact(model, kind=kind)
    text = card if card is not None else (model / CARD).read_text()
    metadata = {
        "license": licence,
        "library_name": "ldae-pipeline",
        "tags": [*TAGS, kind],
        "weights_sha256": artefact.digest,
    }
    with writing_to(out):
        write_atomic(out / WEIGHTS, (model / WEIGHTS).read_bytes())
        write_atomic(out / METRICS, (model / METRICS).read_bytes())
        head = yaml.safe_dump(metadata, sort_keys=False)
        write_atomic(out / CARD, f"{FENCE}{head}{FENCE}\n{_without_metadata(text)}")
        write_atomic(out / CONFIG, (model / CONFIG).read_bytes())
    return (out / WEIGHTS).stat().st_size


def _without_metadata(card: str) -> str:
    """Return a card without metadata of an earlier export."""
    if not card.startswith(FENCE):
        return card
    _, found, rest = card.removeprefix(FENCE).partition(f"\n{FENCE}")
    return rest.lstrip("\n") if found else card
