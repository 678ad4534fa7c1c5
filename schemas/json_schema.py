"""JSON Schemas of the contracts, for readers of the files without this package."""

from typing import Any

from schemas.manifest import MANIFEST_COLUMNS, NUMERIC_COLUMNS, SPLITS
from schemas.metrics import Estimate
from schemas.stores import StoreRecord

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schemas() -> dict[str, dict[str, Any]]:
    """Return file name → schema: store attributes, a row of the manifest, one metric."""
    return {
        "store.json": {"$schema": DIALECT} | StoreRecord.model_json_schema(),
        "manifest.json": {"$schema": DIALECT} | _manifest_row(),
        "metric.json": {"$schema": DIALECT} | Estimate.model_json_schema(),
    }


def _manifest_row() -> dict[str, Any]:
    properties: dict[str, Any] = {
        name: {
            "description": text,
            "type": ["number", "null"] if name in NUMERIC_COLUMNS else "string",
        }
        for name, text in MANIFEST_COLUMNS.items()
    }
    properties["split"]["enum"] = list(SPLITS)
    return {
        "title": "ManifestRow",
        "description": "One row of manifest.csv; further columns are labels of the user's.",
        "type": "object",
        "properties": properties,
        "required": list(MANIFEST_COLUMNS),
        "additionalProperties": True,
    }
