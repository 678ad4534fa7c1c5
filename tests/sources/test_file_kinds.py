"""A plain folder: every file that looks like an image is taken, or has a row with the reason."""

from pathlib import Path

import pytest

from pipeline.sources.file_kinds import not_t1w
from tests.support.source_folders import build, faulty, touch

RESULTS = [
    "p0T1", "p1T1", "mwp1T1", "smwp1T1", "wp2T1", "c1T1", "rc1T1", "wmT1", "mT1", "wT1",
    "y_T1", "iy_T1", "u_rc1T1_Template", "T1_mask", "T1_brain_mask", "T1Mask", "brainmask",
    "T1_seg", "aseg", "aparc+aseg", "T1_dseg", "wmparc", "labels", "T1_label",
    "T1_fast_pve_0", "lesion_mask", "UNI_INV1", "mp2rage_inv2", "sub-7_inv-1_MP2RAGE",
    "sub-7_T1map", "T1_T2w", "x_epi", "x_bold", "x_dwi", "x_T2w", "x_FLAIR",
    "sub-7_part-phase_T1w", "msubj1",
]  # fmt: skip
HEADS = [
    "T1", "T1_brain", "T1_masked", "unmasked_T1", "p1", "c1", "c12", "m01", "w3", "s01",
    "S001", "IXI012-Guys-0738-T1", "WM001", "pd_001", "FA_002", "MS_017", "sub-mask01_T1w",
    "sub-9_ses-rest_T1w", "mprage", "anat_brain", "subj1", "rest_T1w", "Segovia",
    "sub-8_UNIT1", "control3_flash",
]  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_results_and_other_contrasts_are_known_by_name(name: str) -> None:
    assert not_t1w(Path("/r") / f"{name}.nii", {"t1", "subj1"}, Path("/r"))


@pytest.mark.parametrize("name", HEADS)
def test_names_of_people_are_no_results(name: str) -> None:
    assert not_t1w(Path("/r") / f"{name}.nii.gz", {"t1", "subj1"}, Path("/r")) is None


def test_results_beside_the_t1_are_left_with_a_row_each(tmp_path: Path) -> None:
    touch(tmp_path, "01/T1.nii", "02/T1.nii", "01/mri/p0T1.nii", "01/mri/mwp1T1.nii",
          "01/mri/y_T1.nii", "01/c1T1.nii", "02/T1_mask.nii.gz", "labelsTr/02.nii",
          "FLAIR/03.nii", "derivatives/x/01_T1.nii")  # fmt: skip
    manifest, refused = build(tmp_path, "folder")
    assert list(manifest["scan_id"]) == ["sub-01_acq-T1", "sub-02_acq-T1"]
    assert len(refused) == 8
    assert set(refused["stage"]) == {"selection"}
    assert refused["reason"].str.contains("if it is a T1w, rename it or list it").all()


def test_every_file_that_looks_like_an_image_is_taken_or_has_a_row(tmp_path: Path) -> None:
    others = {
        "a.mnc": "MINC", "b.nrrd": "NRRD", "c.mha": "MetaImage", "d.mhd": "MetaImage",
        "e.PAR": "PAR/REC", "g.nii.bz2": "unpack", "h.img": "header h.hdr is missing",
        "i.dcm": "1 DICOM file", "j_epi.nii": "epi", "k_bold.nii.gz": "bold", "l_dwi.nii": "dwi",
        "m_T2w.nii": "t2w", "o+orig.HEAD": "AFNI", "p.mif": "MRtrix", "q.img.gz": "gunzip",
        "deep/er/r.MNC": "MINC",
    }  # fmt: skip
    touch(tmp_path, *others, "e.REC", "o+orig.BRIK", "n.mgh", "n2.NII", "s.hdr", "s.img",
          "._n.nii", ".cache/x.nii", "readme.txt", "brain.png")  # fmt: skip
    manifest, refused = build(tmp_path, "folder")
    assert sorted(Path(p).name for p in manifest["path"]) == ["n.mgh", "n2.NII", "s.hdr"]
    reasons = {Path(p).name: r for p, r in zip(refused["path"], refused["reason"], strict=True)}
    assert set(reasons) == {Path(name).name for name in others}
    for name, said in others.items():
        assert said in reasons[Path(name).name]
    assert {Path(p).name for p in faulty(refused)["path"]} == {
        Path(n).name for n in others if not n.startswith(("j_", "k_", "l_", "m_"))
    }


def test_dicom_among_nifti_is_one_row_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "d/1.dcm", "d/2.dcm", "d/3.IMA")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "IM0").write_bytes(bytes(128) + b"DICM")
    manifest, refused = build(tmp_path, "folder")
    assert list(manifest["scan_id"]) == ["sub-a"]
    assert sorted(refused["reason"].str.split(" among").str[0]) == ["1 DICOM file", "3 DICOM files"]


def test_of_freesurfer_the_t1_alone(tmp_path: Path) -> None:
    touch(tmp_path, *(f"fs1/mri/{n}.mgz" for n in ("T1", "orig", "aseg", "brain", "wm")),
          "fs1/mri/orig/001.mgz", "fs1/mri/transforms/x.mgz", "fs2/mri/orig.mgz")  # fmt: skip
    manifest, refused = build(tmp_path, "folder")
    assert [Path(p).name for p in manifest["path"]] == ["T1.mgz", "orig.mgz"]
    assert list(refused["reason"].str.split(" of").str[0]) == [
        "4 further images", "1 further image", "1 further image"]  # fmt: skip
