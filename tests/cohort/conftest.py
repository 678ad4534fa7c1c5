"""A BIDS folder with sessions, runs, derivatives and labels."""

from pathlib import Path

import pytest

from tests.support.source_folders import touch


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    touch(
        root,
        "sub-001/ses-M00/anat/sub-001_ses-M00_T1w.nii.gz",
        "sub-001/ses-M06/anat/sub-001_ses-M06_T1w.nii.gz",
        "sub-002/anat/sub-002_T1w.nii",
        "sub-002/anat/sub-002_T2w.nii",
        "sub-003/anat/sub-003_acq-mprage_run-2_T1w.nii.gz",
        "sub-003/anat/sub-003_acq-mprage_run-10_T1w.nii.gz",
        "sub-003/anat/sub-003_acq-mprage_run-1_T1w.nii.gz",
        "derivatives/other/sub-004/anat/sub-004_desc-x_T1w.nii.gz",
        "derivatives/other/sub-002/anat/sub-002_desc-x_T1w.nii.gz",
    )
    (root / "participants.tsv").write_text(
        "participant_id\tage\tsex\tdiagnosis\tsite\n"
        "sub-001\t70\tF\tAD\t007\nsub-002\t65.5\tmale\tn/a\t012\n"
        "sub-003\tn/a\tM\tCN\t007\nsub-004\t50\tf\tCN\t007\nsub-005\t51\tM\tCN\t007\n"
    )
    (root / "sub-001" / "sub-001_sessions.tsv").write_text(
        "session_id\tage\tmmse\nses-M00\t70.2\t29\nses-M06\t70.7\t27\n"
    )
    return root
