"""A small study whose volumes really are its images, seen through known transforms."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from pipeline.bids_export.study import StudyFiles
from pipeline.imaging.atlas.mni152 import mni_grid
from pipeline.imaging.geometry import resample_masked
from pipeline.imaging.qc import NUMBERS
from pipeline.stores.builder import ArraySpec, StoreBuilder
from pipeline.stores.volumes import VolumeRow, write_volumes
from schemas.grid import GridParams
from schemas.manifest import MANIFEST_COLUMNS
from schemas.stores import StoreAttributes

GRID = GridParams(shape=(22, 28, 24), zooms=8.0)
NATIVE_SHAPE = (44, 48, 40)
VISITS = (("sub-01", "ses-M00"), ("sub-01", "ses-M12"), ("sub-02", "ses-M00"))
DIM = 12
LDAE = "0123456789abcdef0123"


def native_affine() -> np.ndarray:
    """Oblique, 4 mm, in another axis order than RAS."""
    angle = 0.2
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-4.0, 4.0, 4.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(NATIVE_SHAPE) / 2) + [5, -12, 9]
    return affine


def native_to_mni(seed: int) -> np.ndarray:
    turned = np.eye(4)
    turned[:3, :3] = np.diag([1.05, 0.95, 1.1]) + 0.03 * seed * np.eye(3)[[1, 2, 0]]
    turned[:3, 3] = [2.0 * seed, -4, 3]
    return turned


def head(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth noise in a ball with a bright shell far around it, and the mask of the ball."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=NATIVE_SHAPE), 2.5)
    where = np.indices(NATIVE_SHAPE) - np.array(NATIVE_SHAPE)[:, None, None, None] / 2
    radius = np.sqrt((where**2).sum(axis=0))
    inside = radius < 14
    image = np.where(inside, 300 + 200 * (noise - noise.min()) / np.ptp(noise), 0)
    image[(radius > 18) & (radius < 19)] = 900
    return image.astype(np.float32), inside


def volume_row(seed: int) -> VolumeRow:
    image, inside = head(seed)
    grid = np.asarray(mni_grid(GRID).affine)
    back = np.linalg.inv(native_to_mni(seed)) @ grid
    values, mask = resample_masked(image, inside, native_affine(), back, GRID.shape)
    unit = np.clip((values - 300) / 200, 0, 1)
    return VolumeRow(
        volume=np.where(mask, 1 + np.round(254 * unit), 0).astype(np.uint8),
        native_to_mni=native_to_mni(seed),
        native_affine=native_affine(),
        native_shape=np.array(NATIVE_SHAPE, np.int32),
        intensity_range=np.array([300.0, 500.0]),
    )


def make_study(folder: Path) -> Path:
    """Write a study with its BIDS dataset beside it (`bids`); return it."""
    study, bids = folder / "study", folder / "bids"
    ids = ["_".join(visit) for visit in VISITS]
    rows = []
    for seed, (subject, session) in enumerate(VISITS):
        path = bids / subject / session / "anat" / f"{subject}_{session}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(head(seed)[0], native_affine()), path)
        rows.append(
            dict.fromkeys(MANIFEST_COLUMNS, "x")
            | {"scan_id": ids[seed], "subject_id": subject, "session_id": session}
            | {"path": str(path), "split": "train", "age_years": 91.0 + seed, "sex": "F"}
            | {"diagnosis": "AD", "months_from_first": 12.0 * (session == "ses-M12")}
        )
    (bids / "dataset_description.json").write_text('{"Name": "heads", "BIDSVersion": "1.8.0"}')
    (bids / "participants.tsv").write_text(
        "participant_id\tage\tsex\tlast_name\tschool_years\n"
        "sub-01\t91\tF\tRossi\t13\nsub-02\t70\tM\tSato\t8\nsub-03\t66\tM\tVerdi\t5\n"
    )
    (bids / "participants.json").write_text('{"school_years": {"Units": "year"}}')
    data = study / "data"
    (data / "cohort").mkdir(parents=True)
    pd.DataFrame(rows).to_csv(data / "cohort" / "manifest.csv", index=False)
    write_stores(data, ids)
    qc = [
        {"scan_id": scan, "status": "pass", "reasons": "", "strip_method": "deepbet"}
        | dict.fromkeys(NUMBERS, 0.5)
        for scan in ids
    ]
    pd.DataFrame(qc).to_csv(data / "qc.csv", index=False)
    (study / "params.yaml").write_text("cohort: {source: bids, input: ../bids}\n")
    return study


def files_of(study: Path) -> StudyFiles:
    return StudyFiles.of_folder(study, source=study.parent / "bids")


def _attributes(kind: str, ids: list[str], **more: object) -> StoreAttributes:
    content = {
        "kind": kind,
        "made_by": "test",
        "params": {"preprocess": {"registration": "affine"}},
        "digests": {"preprocessing": "test"},
        "grid": mni_grid(GRID).document(),
        "scan_ids": ids,
        "fingerprints": [f"{kind}-{scan}" for scan in ids],
    }
    return StoreAttributes.model_validate(content | more)


def write_stores(data: Path, ids: list[str]) -> None:
    write_volumes(
        data / "volumes.zarr",
        _attributes("volumes", ids),
        (volume_row(seed) for seed in range(len(ids))),
    )
    spec = ArraySpec(
        name="y_sem",
        row_shape=(DIM,),
        dtype="float32",
        dimension_names=("feature",),
        rows_per_chunk=8,
        compressors=(),
    )
    attributes = _attributes("semantics", ids, digests={"ldae": LDAE})
    builder = StoreBuilder(data / "semantics.zarr", attributes, [spec], unit_rows=8)
    builder.write(range(len(ids)), {"y_sem": y_sem(len(ids))})
    builder.finish()


def y_sem(count: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(count, DIM)).astype(np.float32)


def write_counterfactuals(folder: Path, *, space: str = "mni") -> Path:
    """What `pipeline manipulate` leaves of one scan."""
    folder.mkdir()
    scan, image = "sub-02_ses-M00", "sub-02_ses-M00_scale+1.50_space-MNI152_T1w.nii.gz"
    nib.save(
        nib.Nifti1Image(volume_row(2).volume, np.asarray(mni_grid(GRID).affine)), folder / image
    )
    document = {
        "command": "manipulate",
        "note": "Images made by a model; not measurements, not for diagnosis.",
        "space": space,
        "scan_id": scan,
        "options": {"direction": {"name": "diagnosis:AD", "sha256": "x"}},
        "scale_unit": "standard deviations",
        "outputs": [{"file": image, "scale": 1.5}],
    }
    (folder / f"{scan}_along-diagnosis-AD_manipulate.json").write_text(json.dumps(document))
    return folder
