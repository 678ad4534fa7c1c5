"""Metrics files of stages, checked against their schemas."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from schemas.errors import ContractError
from schemas.results import Result

AnyResult = TypeVar("AnyResult", bound=Result)


def read_metrics(path: Path | None, kind: type[AnyResult]) -> AnyResult | None:
    """Return the metrics file of probe or evaluate, or None where there is none.

    Raises
    ------
    ContractError
        If it is not JSON, or has not the shape of schemas.results.
    """
    document = read_json(path)
    if document is None:
        return None
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ContractError(f"{path}: {where}: {first['msg']}; run its stage again") from error


def read_json(path: Path | None) -> dict[str, Any] | None:
    """Return the JSON object of a file, or None where there is no file or no object."""
    if path is None or not path.is_file():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ContractError(f"{path}: not JSON ({error}); run its stage again") from error
    return value if isinstance(value, dict) else None
