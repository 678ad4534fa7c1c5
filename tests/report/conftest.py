"""A reported study, made once for all test processes."""

from pathlib import Path

import pytest

from tests.support.made_once import MadeOnce
from tests.support.report_study import PARAMS, all_parts, render, write_study


@pytest.fixture(scope="module")
def study(made_once: MadeOnce) -> tuple[Path, str]:
    return made_once("reported", _reported)


def _reported(root: Path) -> tuple[Path, str]:
    write_study(root)
    return root, render(root, PARAMS, **all_parts(root))
