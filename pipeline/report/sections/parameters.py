"""Report section: parameters and versions."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.report.context import ReportContext


def parameter_section(context: ReportContext) -> list[dict[str, Any]]:
    """Return every parameter with its value and meaning, a group a section."""
    source, of_ldae = context.params.autoencoder.source, context.params.train_ldae.source
    taken = f"without effect: train_ldae.source is {of_ldae}" if of_ldae != "train" else ""
    without_effect = {
        "train_ae": "" if source == "train" else f"without effect: autoencoder.source is {source}",
        "train_ldm": taken or ("" if "ldm" in context.logs else "not run"),
        "train_ldae": taken or ("" if "ldae" in context.logs else "not run"),
        "crossfit": "" if context.probe and context.probe.crossfit else "not run",
        "probe": "not run" if context.probe is None else "",
        "evaluate": "not run" if context.evaluate is None else "",
    }
    return [
        {
            "name": name,
            "rows": list(_parameter_rows(getattr(context.params, name))),
            "remark": without_effect.get(name, ""),
        }
        for name in type(context.params).model_fields
    ]


def _parameter_rows(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _parameter_rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _shown(value), field.description or _inherited(section, name)


def _inherited(section: BaseModel, name: str) -> str:
    """Return the meaning that a parent section gives a field whose default is overridden."""
    parents = [c for c in type(section).__mro__ if issubclass(c, BaseModel)]
    fields = (parent.model_fields.get(name) for parent in parents)
    return next((f.description for f in fields if f is not None and f.description), "")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items()) or "–"
    if isinstance(value, tuple | list):
        # Whole numbers are the sides of a box, others the ends of a range or weights.
        sides = len(value) > 1 and all(isinstance(v, int) for v in value)
        return (" × " if sides else ", ").join(map(str, value)) or "–"
    return "–" if value is None else str(value)
