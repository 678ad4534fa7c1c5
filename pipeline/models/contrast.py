"""Whether a trained model works on images of a store's contrast: on that of its training alone."""

from pathlib import Path
from typing import Any

from schemas.errors import ContractError
from schemas.stores import StoreAttributes


def contrast_of(config: dict[str, Any]) -> str:
    """Return the contrast that a model of this config was trained on; older ones saw T1w alone."""
    return str(config.get("contrast", "T1w"))


def check_contrast(
    config: dict[str, Any],
    attributes: StoreAttributes,
    *,
    source: Path,
    model: str,
    allowed_by: str | None = None,
) -> None:
    """Refuse a store of another contrast than a model was trained on.

    `allowed_by` names the parameter that would allow it, where there is one.

    Raises
    ------
    ContractError
        Naming both contrasts and the remedy.
    """
    trained, found = contrast_of(config), attributes.contrast
    if trained != found:
        anyway = f", or to use it all the same --set {allowed_by}=true" if allowed_by else ""
        raise ContractError(
            f"{source}: {found} images, {model} was trained on {trained}; train one on this"
            f" contrast{anyway}"
        )
