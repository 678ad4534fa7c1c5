"""Draw docs/images/phantom_head.png: three people of the phantom cohort in three planes.

Run from the repository root: python docs/make_phantom_picture.py
"""

import tempfile
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np

from pipeline.phantom.cohort import make_phantom_cohort
from pipeline.phantom.subjects import make_subject, make_visits
from schemas.params import PhantomParams

OUT = Path(__file__).parent / "images" / "phantom_head.png"
PEOPLE = 12


def slices(image: nib.Nifti1Image) -> list[np.ndarray]:
    """Return sagittal, coronal and axial slices through brain and eyes, each upright."""
    canonical = nib.as_closest_canonical(image)
    data = canonical.get_fdata()
    data = np.clip(data / np.percentile(data[data > data.mean()], 98.5), 0, 1)
    x, y, z = (n // 2 for n in data.shape)
    planes = (
        data[x],
        data[x + 14],
        data[:, y],
        data[:, y + 32],
        data[:, :, z + 12],
        data[:, :, z - 10],
    )
    return [plane.T for plane in planes]


def main() -> None:
    """Make the people, choose one of each diagnosis, draw them."""
    params = PhantomParams(subjects=PEOPLE, multi_visit_share=0.0)
    people = [make_subject(number, params) for number in range(1, PEOPLE + 1)]
    chosen = [
        min((p for p in people if p.diagnosis == "CN"), key=lambda p: p.age_years),
        next(p for p in people if p.diagnosis == "MCI"),
        max((p for p in people if p.diagnosis == "AD"), key=lambda p: p.atrophy),
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = make_phantom_cohort(Path(folder), params, workers=2)
        rows = [slices(nib.load(next((root / p.subject_id).rglob("*_T1w.nii.gz")))) for p in chosen]
    height = 2.25
    figure, axes = plt.subplots(
        3, 6, figsize=(13, 3 * height), facecolor="black", constrained_layout=True
    )
    for person, row, planes in zip(chosen, axes, rows, strict=True):
        for axis, plane in zip(row, planes, strict=True):
            axis.imshow(plane, cmap="gray", origin="lower", interpolation="bicubic")
            axis.set_axis_off()
        visit = make_visits(person)[0]
        label = f"{visit.diagnosis}, {person.sex}, {visit.age_years:.0f} y"
        row[0].text(
            0.02, 0.98, label, color="white", fontsize=10, va="top", transform=row[0].transAxes
        )
    figure.savefig(OUT, dpi=85, facecolor="black")


if __name__ == "__main__":
    OUT.parent.mkdir(parents=True, exist_ok=True)
    main()
