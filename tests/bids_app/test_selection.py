import json

import pytest

from pipeline.bids_app.selection import check_dataset, chosen_participants, chosen_sessions
from schemas.errors import ContractError, ParamsError
from stages.bids import repeat_options


def test_labels_come_with_or_without_their_prefix(bids):
    assert chosen_participants(bids, ["02", "sub-01", "02"]) == ["sub-02", "sub-01"]
    assert chosen_participants(bids, []) == ["sub-01", "sub-02", "sub-03"]
    assert chosen_sessions(bids, ["ses-b"], ["sub-03"]) == ["ses-b"]


def test_labels_that_match_nobody_are_named_with_those_that_are_there(bids):
    with pytest.raises(ParamsError, match=r"--participant-label 7 x: not in .*has 01, 02, 03$"):
        chosen_participants(bids, ["7", "01", "x"])
    with pytest.raises(ParamsError, match=r"--session-label a: not in .*has none"):
        chosen_sessions(bids, ["a"], ["sub-01"])


def test_a_derivative_is_refused_by_its_name(bids):
    content = {"DatasetType": "derivative", "GeneratedBy": [{"Name": "fMRIPrep"}]}
    (bids / "dataset_description.json").write_text(json.dumps(content))
    with pytest.raises(ContractError, match="a derivative of fMRIPrep; give the raw dataset"):
        check_dataset(bids)


def test_a_folder_without_subjects_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ContractError, match="no folder sub-<label>"):
        check_dataset(tmp_path / "empty")
    with pytest.raises(ContractError, match="no such folder"):
        check_dataset(tmp_path / "nowhere")


def test_one_option_takes_several_labels_as_in_other_apps():
    words = ["in", "out", "participant", "--participant-label", "01", "02", "-w", "work"]
    assert repeat_options(words) == [
        *("in", "out", "participant"),
        *("--participant-label", "01", "--participant-label", "02"),
        *("-w", "work"),
    ]
    assert repeat_options(["--participant_label=01", "in"]) == ["--participant_label=01", "in"]


@pytest.mark.parametrize("words", [["--participant-label"], ["--session-label", "-w", "work"]])
def test_an_option_without_a_label_never_means_everybody(words):
    with pytest.raises(ParamsError, match="label: expected a label or several; leave it out"):
        repeat_options(["in", "out", "participant", *words])


def test_an_empty_label_is_nobody(bids):
    with pytest.raises(ParamsError, match=r"--participant-label '' '': not in|label '': not in"):
        chosen_participants(bids, ["", "*"])
