import pytest

from pipeline.bids_export.counterfactuals import label_of
from pipeline.bids_export.names import all_names, names_of
from schemas.errors import ContractError


@pytest.mark.parametrize(
    ("scan", "subject", "session", "stem"),
    [
        ("sub-01", "sub-01", "", "sub-01"),
        ("sub-01_ses-M00_run-2", "sub-01", "ses-M00", "sub-01_ses-M00_run-2"),
        ("sub-01_run-1_acq-mprage", "sub-01", "", "sub-01_acq-mprage_run-1"),
        ("sub-01_ses-1_run-2b", "sub-01", "ses-1", "sub-01_ses-1_acq-run2b"),
        ("sub-01_inv-2", "sub-01", "", "sub-01_acq-inv2"),
        ("sub-01_ses-1_second.try", "sub-01", "ses-1", "sub-01_ses-1_acq-secondtry"),
        ("002_S_1_x", "002_S_1", "", "sub-002S1_acq-x"),
    ],
)
def test_a_scan_id_becomes_entities_that_bids_knows(scan, subject, session, stem):
    assert names_of(scan, subject, session).stem == stem


def test_two_scans_never_share_a_name():
    rows = [
        {"scan_id": f"sub-01_{word}", "subject_id": "sub-01", "session_id": ""}
        for word in ("a.b", "a-b")
    ]
    with pytest.raises(ContractError, match=r"sub-01_a\.b and sub-01_a-b would both be called"):
        all_names(rows)


def test_two_subjects_never_share_a_label():
    rows = [{"scan_id": s, "subject_id": s, "session_id": ""} for s in ("a_1", "a1_x", "a1")]
    with pytest.raises(ContractError, match="a_1 and a1 would both be called sub-a1"):
        all_names([rows[0], rows[2]])


def test_labels_of_counterfactuals_are_letters_and_digits():
    assert label_of("diagnosis:AD", -1.5) == "counterfactualdiagnosisADm1d5"
    assert label_of("age_years", 3) == "counterfactualageyearsp3"


def test_images_are_named_by_the_contrast_of_the_study():
    row = {"scan_id": "sub-1", "subject_id": "sub-1", "session_id": ""}
    for contrast, suffix in (("FLAIR", "FLAIR"), (None, "T1w"), ("yes", "T1w")):
        names = all_names([row | {"contrast": contrast}])["sub-1"]
        assert names.preprocessed.name.endswith(f"_desc-preproc_{suffix}.nii.gz")
        assert names.sidecar.name.endswith(f"_desc-preproc_{suffix}.json")
