"""The dataset as other tools read it."""

import json
import re
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import binary_erosion

from pipeline.bids_export.dataset import REQUIRED
from pipeline.imaging.ants_setup import load_ants
from pipeline.imaging.register import correlation
from tests.support.export_study import DIM, head, native_affine, volume_row, y_sem

VALIDATOR = shutil.which("bids-validator-deno")
SPACE = "space-MNI152NLin2009aSym"


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_schema_validator_finds_no_error(exported):
    result = subprocess.run(
        [str(VALIDATOR), str(exported), "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    issues = json.loads(result.stdout)["issues"]["issues"]
    assert [i for i in issues if i["severity"] == "error"] == []
    assert result.returncode == 0


def test_the_description_has_the_keys_whose_absence_the_validator_passes(exported):
    content = json.loads((exported / "dataset_description.json").read_text())
    assert content["DatasetType"] == "derivative"
    assert all(content[key] for key in REQUIRED)
    assert all(entry["Name"] and entry["Version"] for entry in content["GeneratedBy"])
    root = exported / content["DatasetLinks"]["raw"]
    assert root.resolve() == exported.parents[1].resolve()


def test_every_image_says_that_it_is_stripped_and_where_it_came_from(exported):
    images = sorted(exported.rglob("*_T1w.nii.gz"))
    assert len(images) == 4
    for image in images:
        sidecar = json.loads(image.with_name(image.name[:-7] + ".json").read_text())
        assert sidecar["SkullStripped"] is True
        (source,) = [s for s in sidecar["Sources"] if s.startswith("bids:raw:")]
        assert (exported.parents[1] / source.removeprefix("bids:raw:")).is_file()


def test_images_are_those_of_the_store(exported):
    for seed, name in enumerate(("sub-01/ses-M00", "sub-01/ses-M12", "sub-02/ses-M00")):
        stem = name.replace("/", "_")
        folder = exported / name / "anat"
        image = nib.load(folder / f"{stem}_{SPACE}_desc-preproc_T1w.nii.gz")
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume_row(seed).volume)
        np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-5)
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 4
        mask = nib.load(folder / f"{stem}_{SPACE}_desc-brain_mask.nii.gz")
        np.testing.assert_array_equal(np.asarray(mask.dataobj), volume_row(seed).volume > 0)


def test_ants_brings_the_scan_where_we_do(exported):
    """Our transform in other hands: within the brain the two volumes are the same."""
    ants = load_ants()
    for seed, stem in enumerate(("sub-01_ses-M00", "sub-01_ses-M12", "sub-02_ses-M00")):
        folder = exported / stem.replace("_", "/") / "anat"
        fixed = ants.image_read(str(folder / f"{stem}_{SPACE}_desc-preproc_T1w.nii.gz"))
        raw = exported.parents[1] / stem.replace("_", "/") / "anat" / f"{stem}_T1w.nii.gz"
        moving = ants.image_read(str(raw))
        transform = folder / f"{stem}_from-T1w_to-MNI152NLin2009aSym_mode-image_xfm.txt"
        moved = ants.apply_transforms(fixed, moving, [str(transform)]).numpy()
        ours = volume_row(seed).volume
        core = ours > 0
        # The rim mixes with air in ANTs, which knows no mask.
        assert correlation(moved, ours, binary_erosion(core, iterations=2)) >= 0.99


def test_the_native_mask_lies_on_the_scan(exported):
    name = "sub-01_ses-M00_desc-brain_mask.nii.gz"
    mask = nib.load(exported / "sub-01" / "ses-M00" / "anat" / name)
    inside = np.asarray(mask.dataobj) > 0
    truth = head(0)[1]
    dice = 2 * (inside & truth).sum() / (inside.sum() + truth.sum())
    assert dice > 0.95
    np.testing.assert_allclose(mask.affine, native_affine(), atol=1e-4)


def test_participants_are_carried_without_names_of_people(exported):
    table = pd.read_csv(exported / "participants.tsv", sep="\t", dtype=str)
    assert table["participant_id"].tolist() == ["sub-01", "sub-02"]
    assert table["age"].tolist() == ["89+", "70"]
    assert "last_name" not in table
    described = json.loads((exported / "participants.json").read_text())
    assert set(described) == set(table)
    assert described["school_years"] == {"Units": "year"}


def test_a_table_has_a_row_a_participant_and_the_numbers_exactly(exported):
    codes = y_sem(3)
    tables = sorted(p.name for p in (exported / "phenotype").glob("ldae_ysem*.tsv"))
    assert tables == ["ldae_ysem_ses-M00.tsv", "ldae_ysem_ses-M12.tsv"]
    first = pd.read_csv(exported / "phenotype" / tables[0], sep="\t", index_col=0)
    columns = [f"ysem_{i:02d}" for i in range(DIM)]
    np.testing.assert_array_equal(first[columns].to_numpy(np.float32), codes[[0, 2]])
    described = json.loads((exported / "phenotype" / "ldae_ysem_ses-M00.json").read_text())
    assert set(columns) <= set(described)
    qc = pd.read_csv(exported / "phenotype" / "ldae_qc_ses-M12.tsv", sep="\t")
    assert qc["status"].tolist() == ["pass"]
    assert "path" not in qc


def test_a_counterfactual_says_that_it_is_made_up(exported):
    stem = f"sub-02_ses-M00_{SPACE}_desc-counterfactualdiagnosisADp1d5_T1w"
    sidecar = json.loads((exported / "sub-02" / "ses-M00" / "anat" / f"{stem}.json").read_text())
    assert "not for diagnosis" in sidecar["Description"]
    assert sidecar["Scale"] == 1.5


def test_pages_are_whole_and_ask_for_nothing(exported):
    for page in sorted(exported.glob("*.html")):
        text = page.read_text()
        links = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', text)
        assert [link for link in links if not (exported / link).is_file()] == []
    page = (exported / "sub-01.html").read_text()
    assert page.count("<img ") == 4  # before and after registration, of two visits


def test_what_a_validator_does_not_know_is_ignored_by_name(exported):
    ignored = (exported / ".bidsignore").read_text().split()
    assert {"*_xfm.txt", "*.html"} <= set(ignored)
