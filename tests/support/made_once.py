"""Share what is expensive to make among test processes."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

MadeOnce = Callable[[str, Callable[[Path], Any]], Any]
"""`made_once(name, make)` returns what `make(folder)` returned to the process that came first."""


def share(base: Path, name: str, make: Callable[[Path], Any]) -> Any:
    """Return what `make(base / name)` returned, in this process or an earlier one."""
    folder, result = base / name, base / f"{name}.pickle"
    with FileLock(f"{folder}.lock"):
        if not result.is_file():
            folder.mkdir()
            result.write_bytes(pickle.dumps(make(folder)))
    return pickle.loads(result.read_bytes())
