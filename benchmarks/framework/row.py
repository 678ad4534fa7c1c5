"""Measure one row in a process of its own.

python -m benchmarks.framework.row MODULE NAME RESULT.json
"""

import importlib
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path


def main() -> None:
    """Measure the row and write what came out."""
    module, name, out = sys.argv[1:]
    (row,) = (row for row in importlib.import_module(module).ROWS if row.name == name)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        Path(out).write_text(json.dumps(asdict(row.measure(Path(folder)))))


if __name__ == "__main__":
    main()
