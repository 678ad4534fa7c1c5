"""Whether a trained model works on images of a store's contrast: on that of its training alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.errors import ContractError

ENCODE_ANY = "encode.any_contrast"
"""Parameter that lets an autoencoder work on images of another contrast."""
EMBED_ANY = "embed.any_contrast"
"""Parameter that lets an LDAE embed latents of another contrast."""
EVALUATE_ANY = "evaluate.any_contrast"
"""Parameter that lets evaluation and applications work on scans of another contrast."""


def contrast_of(config: dict[str, Any]) -> str:
    """Return the contrast that a model of this config was trained on; older ones saw T1w alone."""
    return str(config.get("contrast", "T1w"))


def check_contrast(
    config: dict[str, Any],
    found: str,
    *,
    source: Path | str,
    model: str,
    allowed_by: Sequence[str] = (),
) -> None:
    """Refuse images of another contrast (`found`) than a model was trained on.

    `allowed_by` names the parameters that would allow it, where there are any.

    Raises
    ------
    ContractError
        Naming both contrasts and the remedy.
    """
    trained = contrast_of(config)
    if trained != found:
        asked = " ".join(f"--set {name}=true" for name in allowed_by)
        anyway = f", or to use it all the same {asked}" if asked else ""
        raise ContractError(
            f"{source}: {found} images, {model} was trained on {trained}; train one on this"
            f" contrast{anyway}"
        )
