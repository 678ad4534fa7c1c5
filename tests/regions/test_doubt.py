"""A direction whose probe does not beat chance is told where it is used."""

import json

import pytest

from schemas.errors import ParamsError
from stages.manipulate import doubt_of_direction
from stages.regions import _remarks, check_regions

SIZE = {"scans": 20, "subjects": 20}


@pytest.mark.parametrize(("low", "told"), [(0.45, True), (0.6, False)])
def test_the_metrics_beside_the_directions_tell(tmp_path, low, told):
    auc = {"value": 0.7, "low": low, "high": 0.9, "subjects": 40, "interval_method": "score"}
    about = {
        "kind": "classification",
        "negative": "CN",
        "positive": "AD",
        "test": {
            "judged_on": {"all": SIZE, "CN": SIZE, "AD": SIZE},
            "permutation": {"p": 0.01, "permutations": 100},
        },
    }
    metrics = {"test": {"diagnosis": {"y_sem": {"roc_auc": auc}}}, "targets": {"diagnosis": about}}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    doubt = doubt_of_direction(tmp_path / "directions.json", "diagnosis:AD")
    assert (doubt is not None) == told
    if told:
        assert "not shown to beat chance" in doubt


def test_without_metrics_nothing_is_told(tmp_path):
    assert doubt_of_direction(tmp_path / "directions.json", "diagnosis:AD") is None


def test_what_was_said_of_volumes_is_said_once():
    documents = [{"remarks": ["a"]}, {"remarks": ["a", "b"]}, {}]
    assert _remarks(documents) == ["a", "b"]


def test_regions_of_native_volumes_are_refused_before_any_work():
    with pytest.raises(ParamsError, match="volumes of --space mni"):
        check_regions(asked=True, space="native")
    check_regions(asked=False, space="native")
