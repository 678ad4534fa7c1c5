"""Write the JSON Schemas that lie beside the contracts: python -m stages.json_schemas."""

import json
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "schemas" / "json"


def write_contracts(folder: Path) -> None:
    """Write one JSON Schema a contract."""
    from schemas.json_schema import json_schemas

    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in json_schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write_contracts(FOLDER)
