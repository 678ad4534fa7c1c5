"""An outcome on disk: NIfTI files, a picture, and last a JSON of what was done."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import nibabel as nib
import numpy as np
from isal import igzip
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.applications.generated_volumes import Outcome
from pipeline.applications.inputs import Source
from pipeline.applications.native_space import brain_of, overlay, read_native, resolution, to_native
from pipeline.figures.brain_slices import Tile, qc_mosaic, reconstruction_strip
from pipeline.figures.style import figure_style, save_figure
from pipeline.imaging.header import zooms_of
from pipeline.models.inference import Models
from pipeline.runtime.files import write_atomic, write_json, writing_to
from pipeline.runtime.progress import progress
from schemas.errors import ContractError

log = logging.getLogger(__name__)

Space = Literal["mni", "native"]
XFORM_CODES = {"mni": 4, "native": 1}
"""NIfTI xform codes: MNI152, scanner."""
MAX_ROWS = 12
"""Most volumes shown in a picture; of more, some evenly spread ones are."""
NOTE = "Images made by a model; not measurements, not for diagnosis."


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes outcomes of one command to one folder."""

    out: Path
    command: str
    space: Space
    models: Models
    variant: str = ""
    """Part of every file's name, such as `seed-1`: what keeps runs apart in one folder."""

    def prepare(self) -> None:
        """Make the folder, before work is done for it.

        Raises
        ------
        ContractError
            If nothing can be written there.
        """
        with writing_to(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self.out):
                pass

    def check(self, source: Source) -> None:
        """Refuse early what could not be written.

        Raises
        ------
        ContractError
            If native space is asked for and the way back is not known.
        """
        if self.space == "native" and source.native is None:
            raise ContractError(
                f"--space native: the way back of {source.scan_id} is not known; give its"
                " --volumes (a store made with registration syn keeps no way back)"
            )

    def has(self, stem: str, record: dict[str, Any]) -> bool:
        """Tell whether a former run wrote, and to the end, what would be written now.

        `record` is what is known beforehand; what an application adds to it does not matter.
        """
        document = self._former(stem)
        if not document:
            return False
        expected = json.loads(json.dumps(self._head() | record, default=str))
        files = _files(document)
        return _holds(document, expected) and all((self.out / file).is_file() for file in files)

    def _former(self, stem: str) -> dict[str, Any]:
        """Return the JSON of a former run, or nothing where there is none that is whole."""
        try:
            document = json.loads(self.document(stem).read_text())
            _files(document)
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return dict(document)

    def write_once(
        self, outcome: Outcome, *, stem: str, record: dict[str, Any]
    ) -> tuple[Path, bool]:
        """Write unless a former run did; returns the JSON's path, and whether it was written."""
        if self.has(stem, record):
            return self.document(stem), False
        self.prepare()
        return self.write(outcome, stem=stem, record=record), True

    def write(
        self,
        outcome: Outcome,
        *,
        stem: str,
        record: dict[str, Any],
        source: Source | None = None,
        reference: tuple[str, NDArray[np.float32]] | None = None,
        last: tuple[str, NDArray[np.float32]] | None = None,
        watched: bool = True,
    ) -> Path:
        """Make and write one batch of volumes after the other, the picture, and last the JSON.

        Returns the JSON's path.

        Parameters
        ----------
        outcome
            What to write.
        stem
            Start of every file name.
        record
            What to add to the JSON.
        source
            The scan whose native space and brain mask are used.
        reference
            Title and volume that the picture compares with; without, volumes stand alone.
        last
            Title and volume that the picture ends with, beside what was made.
        watched
            Show progress, volume by volume.
        """
        outputs: list[dict[str, Any]] = []
        image = None
        if self.space == "native" and source is not None and source.file is not None:
            image = read_native(source.file)
        named = self._named(stem)
        shown = _shown(len(outcome.labels))
        pictured = {}
        volumes = self._made(outcome)
        # Where the sampler shows its steps, a bar of volumes above them would be one too many.
        if watched and not self.models.watched and len(outcome.labels) > 1:
            volumes = progress(volumes, total=len(outcome.labels), label=self.command)
        for row, volume in enumerate(volumes):
            label = outcome.labels[row]
            path = self.out / f"{named}_{label}_space-{_SPACE_NAMES[self.space]}_T1w.nii.gz"
            written = self._write_volume(path, volume, source)
            outputs.append({"file": path.name} | outcome.details[row])
            if image is not None:
                outputs[row] |= self._overlaid(written, image, source)
            if row in shown:
                pictured[label] = volume
        if last is not None:
            pictured[last[0]] = last[1]
        picture = self.document(stem).with_suffix(".png")
        with figure_style():
            save_figure(_picture(pictured, reference), picture)
        document = {
            **self._head(),
            **record,
            **outcome.record,
            **self._intensities(source),
            "picture": picture.name,
            "outputs": outputs,
        }
        before = set(_files(self._former(stem))) - set(_files(document))
        left = [name for name in sorted(before) if (self.out / name).is_file()]
        path = self.document(stem)
        write_json(path, document)
        if left:
            log.warning(
                "%s: written over; of the former run %d image(s) stay and are no longer in it (%s)",
                path,
                len(left),
                left[0],
            )
        return path

    def document(self, stem: str) -> Path:
        """Return where the JSON of what starts with `stem` lies."""
        space = "" if self.space == "mni" else f"_space-{self.space}"
        return self.out / f"{self._named(stem)}_{self.command}{space}.json"

    def _named(self, stem: str) -> str:
        return f"{stem}_{self.variant}" if self.variant else stem

    def _intensities(self, source: Source | None) -> dict[str, str]:
        if self.space == "mni" or source is None or source.native is None:
            return {"intensities": "0 to 1, of the brain's percentiles"}
        known = source.native.bias is not None
        return {"intensities": "of the file" if known else "of the file, bias field taken out"}

    def _head(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "note": NOTE,
            "space": self.space,
            **self.models.record(),
        }

    def _made(self, outcome: Outcome) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(outcome.labels), self.models.batch_size):
            made = outcome.make(slice(start, start + self.models.batch_size))
            yield from np.asarray(made.numpy(), dtype=np.float32)

    def _overlaid(
        self, written: NDArray[np.float32], image: NDArray[np.float32], source: Source | None
    ) -> dict[str, float]:
        """Return the correlations with the file: of its voxels, and at the grid's resolution."""
        assert source is not None
        assert source.native is not None
        affine = np.asarray(self.models.autoencoder.grid.affine, dtype=np.float64)
        sigma = resolution(float(zooms_of(affine).mean()), source.native.native_affine)
        return {
            "correlation_with_file": round(overlay(written, image), 4),
            "correlation_with_file_smoothed": round(overlay(written, image, sigma), 4),
        }

    def _write_volume(
        self, path: Path, volume: NDArray[np.float32], source: Source | None
    ) -> NDArray[np.float32]:
        """Write one volume in the space that was asked for; return it as it was written."""
        affine = np.asarray(self.models.autoencoder.grid.affine, dtype=np.float64)
        if self.space == "native":
            assert source is not None
            assert source.native is not None
            known = None if source.volume is None else source.volume > 0
            volume = to_native(volume, brain_of(volume, known), source.native, affine)
            affine = source.native.native_affine
        write_nifti(path, volume, affine, code=XFORM_CODES[self.space], made_by=self.command)
        return volume


_SPACE_NAMES = {"mni": "MNI152", "native": "native"}


def write_nifti(
    path: Path, volume: NDArray[np.float32], affine: NDArray[np.float64], *, code: int, made_by: str
) -> None:
    """Write a float32 volume as .nii.gz, whole or not at all; equal input gives equal bytes."""
    image = nib.Nifti1Image(volume, None)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = f"ldae-pipeline {made_by} (synthetic)".encode()
    write_atomic(path, igzip.compress(image.to_bytes(), 3, mtime=0))


def _files(document: dict[str, Any]) -> list[str]:
    """Return the names of the files that a JSON lists; none of an empty one."""
    if not document:
        return []
    return [document["picture"], *(output["file"] for output in document["outputs"])]


def _holds(document: Any, expected: Any) -> bool:
    if isinstance(document, dict) and isinstance(expected, dict):
        return all(_holds(document.get(key), value) for key, value in expected.items())
    return bool(document == expected)


def _shown(count: int) -> set[int]:
    rows = np.linspace(0, count - 1, min(MAX_ROWS, count)).round()
    return set(rows.astype(int).tolist())


def _picture(
    volumes: dict[str, NDArray[np.float32]], reference: tuple[str, NDArray[np.float32]] | None
) -> Figure:
    if reference is None:
        tiles = [
            Tile(label, (volume * 255).round().astype(np.uint8))
            for label, volume in volumes.items()
        ]
        return qc_mosaic(tiles)
    title, volume = reference
    return reconstruction_strip(volume, volumes, {"reference": title})
