"""Another contrast than T1w from plain folders and from DICOM series."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.cohort.contrast import with_contrast
from pipeline.sources.named_contrast import not_of
from schemas.errors import ParamsError
from schemas.params import PreprocessParams
from tests.support.dicom_fixtures import look, series
from tests.support.source_folders import build, touch

NAMES = {
    "FLAIR": [
        "FLAIR",
        "t2_flair",
        "sub-1_FLAIR",
        "x_T2-FLAIR",
        "t2_tirm_dark-fluid",
        "p7",
        "brain",
    ],
    "T2w": ["T2", "T2w", "sub-2_ses-1_T2w", "x_t2_tse", "017"],
    "PDw": ["PD", "x_pdw", "proton_density"],
    "T2starw": ["T2star", "x_t2star", "x_T2starw", "t2_star_x"],
}


@pytest.mark.parametrize(("contrast", "names"), NAMES.items())
def test_names_of_a_contrast(contrast: str, names: list[str]) -> None:
    root = Path("/r")
    others = [name for other, some in NAMES.items() if other != contrast for name in some]
    told = {"p7", "brain", "017"}
    for name in names:
        assert not_of(contrast, root / f"{name}.nii.gz", set(), root) is None, name
    for name in [n for n in others if n not in told] + ["T1", "sub-1_T1w", "FLAIR_mask", "x_bold"]:
        assert not_of(contrast, root / f"{name}.nii.gz", set(), root), name
    assert not_of(contrast, root / contrast.lower() / "p7.nii", set(), root) is None


def test_a_folder_of_flair_is_a_study_of_flair(tmp_path: Path) -> None:
    touch(tmp_path, "01/T1.nii", "01/FLAIR.nii", "02/t2_flair.nii", "02/T2.nii",
          "02/FLAIR_seg.nii", "03/mri/T1.mgz", "03/mri/brain.mgz")  # fmt: skip
    manifest, refused = build(tmp_path, "folder", suffix="FLAIR")
    assert sorted(Path(p).name for p in manifest["path"]) == ["FLAIR.nii", "t2_flair.nii"]
    assert set(manifest["contrast"]) == {"FLAIR"}
    assert with_contrast(PreprocessParams(), manifest).contrast == "FLAIR"
    reasons = " ".join(refused["reason"])
    assert "no FLAIR: T1w by its name; if it is a FLAIR, rename it" in reasons
    assert "2 further images of FreeSurfer here; none is taken" in reasons
    assert "contrast" not in build(tmp_path, "folder")[0]


SERIES: dict[str, dict[str, Any]] = {
    "t1_mprage": {"EchoTime": 3},
    "t2_tse_tra": {"EchoTime": 100, "ScanningSequence": "SE"},
    "t2_tirm_tra_dark-fluid": {
        "EchoTime": 90,
        "InversionTime": 2500,
        "ScanningSequence": ["SE", "IR"],
    },
    "pd+t2 ADC": {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"]},
    "PD tse": {"EchoTime": 20, "ScanningSequence": "SE"},
    "t2*_gre": {"EchoTime": 20, "ScanningSequence": "GR"},
}


@pytest.mark.parametrize(
    ("contrast", "wanted"),
    [
        ("T1w", "t1_mprage"),
        ("T2w", "t2_tse_tra"),
        ("FLAIR", "t2_tirm_tra_dark-fluid"),
        ("PDw", "PD tse"),
        ("T2starw", "t2*_gre"),
    ],
)
def test_the_series_of_a_contrast_is_taken(tmp_path: Path, contrast: str, wanted: str) -> None:
    for number, (name, more) in enumerate(SERIES.items(), 1):
        series(tmp_path / "1" / "all", name, number, **more)
    taken, reasons, _ = look(tmp_path, contrast=contrast)
    assert taken == wanted
    assert len(reasons) == len(SERIES) - 1
    if contrast == "FLAIR":
        assert reasons["t1_mprage"] == "T1w by its name or timing"
        assert reasons["t2_tse_tra"] == "T2w by its name or timing"


def test_timing_alone_tells_flair_from_t2w(tmp_path: Path) -> None:
    series(tmp_path / "1" / "a", "ax brain", 1, EchoTime=95, ScanningSequence="SE")
    series(tmp_path / "1" / "a", "ax brain 2", 2, EchoTime=95, InversionTime=2400,
           ScanningSequence=["SE", "IR"])  # fmt: skip
    assert look(tmp_path, contrast="FLAIR")[0] == "ax brain 2"
    assert look(tmp_path, contrast="T2w")[0] == "ax brain"


def test_a_session_without_the_contrast_is_refused(tmp_path: Path) -> None:
    series(tmp_path / "1" / "a", "t1_mprage", 1)
    taken, reasons, _ = look(tmp_path, contrast="FLAIR")
    assert taken is None
    assert "no usable FLAIR series (1 t1_mprage: T1w by its name or timing)" in reasons[""]
    with pytest.raises(ParamsError, match=r"cohort\.suffix angio: of DICOM series T1w, T2w, FLAIR"):
        build(tmp_path, "dicom", suffix="angio")
