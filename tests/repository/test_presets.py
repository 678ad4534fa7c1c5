"""What the docs say of the presets is what the presets hold."""

import re
from typing import Any

import pytest

from pipeline.training.step_module import ADAM_BETAS
from stages.params_file import load_params
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "method.md").read_text()
SECTIONS = ("train_ldm", "train_ldae", "evaluate")
OF_SIZE = (
    "evaluate.max",
    "evaluate.other",
    "evaluate.manipulation",
    "evaluate.generation",
    "evaluate.forecast",
)
"""How much is judged is no part of the recipe, nor is the voxel-space baseline."""


def told() -> dict[str, tuple[str, str, str]]:
    table = PAGE.split("<!-- presets -->")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    return {name: (published, paper, parity) for name, published, paper, parity in rows}


def flat(values: dict[str, Any], prefix: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}.{name}")
        else:
            plain = "none" if value is None else str(value).strip("()[]")
            found[f"{prefix}.{name}"] = plain
    return found


def preset(name: str) -> dict[str, str]:
    params = load_params(ROOT / "params" / f"{name}.yaml", [])
    found: dict[str, str] = {}
    for section in SECTIONS:
        found |= flat(getattr(params, section).model_dump(), section)
    return found


@pytest.mark.parametrize(("column", "name"), [(1, "paper"), (2, "parity")])
def test_the_list_of_differences_is_that_of_the_presets(column: int, name: str) -> None:
    values = preset(name)
    assert len(told()) > 10
    for parameter, cells in told().items():
        assert values[parameter] == cells[column], parameter


def test_parity_is_published_wherever_a_parameter_can_be() -> None:
    for parameter, (published, _, parity) in told().items():
        assert parity == published, parameter


def test_no_difference_of_paper_and_parity_is_left_out() -> None:
    paper, parity = preset("paper"), preset("parity")
    kept = {name for name in paper if paper[name] != parity[name]}
    kept -= {n for n in kept if n.startswith((*OF_SIZE, "evaluate.voxel_dae"))}
    assert kept <= told().keys(), kept - told().keys()


def test_what_the_code_fixes_is_listed() -> None:
    assert f"betas are {ADAM_BETAS[0]} and {ADAM_BETAS[1]}" in PAGE
    for word in ("cosine", "moving average warms up", "batch norm without affine part"):
        assert word in PAGE.split("In the code, so in both:")[1].split("##")[0]


def test_no_auc_of_eight_people_is_printed() -> None:
    for page in ("method", "phantom-run", "evaluation"):
        rows = (ROOT / "docs" / f"{page}.md").read_text()
        assert not re.search(r"AUC[^|\n]*\|[^\n]*\b0\.00\b", rows), page
