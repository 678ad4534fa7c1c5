"""Features of un-CNN, a frozen network of random weights: a rival that has learnt nothing.

Encin et al. 2026, bioRxiv 2026.06.07.730652 (package `uncnn`, MIT). It reads T1-weighted brains on
the MNI152 grid of 2 mm, of 91×109×91 voxels; what beats y_sem here needed no training at all.
"""

import importlib.util
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.imaging.geometry import sample
from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import lock_store, write_atomic
from pipeline.runtime.progress import Progress
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ParamsError

SHAPE = (91, 109, 91)
AFFINE = np.array([[2.0, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
"""The grid that un-CNN was tuned on: voxel to MNI152 world (mm), RAS."""
KEYS = ("scan_id", "made_of")
"""Columns before the features; `made_of` is a digest of volume and network."""


def write_uncnn_features(volumes: VolumeStore, out: Path, *, device: torch.device) -> int:
    """Write a CSV of KEYS and 9664 features of each scan, as `probe.rivals` reads it.

    Rows of the same volumes that are at `out`, or that an interrupted run left, are kept. Returns
    how many scans were computed.

    Raises
    ------
    ParamsError
        If uncnn is not installed.
    ContractError
        If another process is writing `out`, or it cannot be written.
    """
    if importlib.util.find_spec("uncnn") is None:
        raise ParamsError("features: uncnn is not installed; pip install 'ldae-pipeline[uncnn]'")
    network = f"uncnn {version('uncnn')}"
    scans = dict(zip(volumes.attributes.scan_ids, volumes.attributes.fingerprints, strict=True))
    digests = {scan: digest_of([fingerprint, network]) for scan, fingerprint in scans.items()}
    work = out.with_name(f".{out.name}.work")
    with lock_store(out):
        lines = _finished(out, digests) | _finished(work, digests)
        todo = [scan for scan in scans if scan not in lines]
        # What is kept is written first: a torn last line of an interrupted run is gone for good.
        write_atomic(work, "".join(lines.values()))
        with work.open("a") as file, Progress("Features", total=len(scans), done=len(lines)) as bar:
            for scan, features in _computed(volumes, todo, device):
                cells = [scan, digests[scan], *(f"{value:.7g}" for value in features)]
                lines[scan] = ",".join(cells) + "\n"
                file.write(lines[scan])
                file.flush()
                bar.advance()
        dim = len(next(iter(lines.values())).split(",")) - len(KEYS)
        header = ",".join([*KEYS, *(f"uncnn_{i:04d}" for i in range(dim))]) + "\n"
        write_atomic(out, header + "".join(lines[scan] for scan in scans))
        work.unlink()
    return len(todo)


def _finished(path: Path, digests: dict[str, str]) -> dict[str, str]:
    """Return the whole lines of a table whose volume and network are still the same, by scan."""
    if not path.is_file():
        return {}
    found = {}
    for line in path.read_text().splitlines(keepends=True):
        scan, _, rest = line.partition(",")
        if line.endswith("\n") and digests.get(scan) == rest.partition(",")[0]:
            found[scan] = line
    return found


def _computed(
    volumes: VolumeStore, scans: list[str], device: torch.device
) -> Iterator[tuple[str, NDArray[np.floating[Any]]]]:
    if not scans:
        return
    import uncnn

    model = uncnn.load_model(device=device)
    grid = np.asarray(volumes.attributes.grid.affine, dtype=np.float64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii"
        for scan in scans:
            volume = volumes.read_row(volumes.row_of[scan]).volume.astype(np.float32)
            nib.save(nib.Nifti1Image(sample(volume, grid, AFFINE, SHAPE), AFFINE), path)
            yield scan, uncnn.extract_features(path, batch_size=1, device=device, model=model)[0]
