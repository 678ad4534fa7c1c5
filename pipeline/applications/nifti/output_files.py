"""The files of an application: NIfTI volumes, a picture, and last a JSON of what was done."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.applications.generated_volumes import GeneratedVolumes, TitledVolume
from pipeline.applications.inputs import InputScan
from pipeline.applications.nifti.native_space import read_native
from pipeline.applications.nifti.volume_files import SPACE_NAMES, Space, VolumeWriter
from pipeline.models.inference import LdaeInference
from pipeline.runtime.files import write_json, writing_to
from pipeline.runtime.progress import progress
from schemas.errors import ContractError

if TYPE_CHECKING:  # drawing is imported where something was made: what is kept has its picture
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

MAX_ROWS = 12
"""Most volumes shown in a picture; of more, some evenly spread ones are."""
NOTE = "Images made by a model; not measurements, not for diagnosis."


@dataclass(frozen=True, slots=True)
class PictureFrame:
    """The real volumes that a picture shows with the generated ones."""

    reference: TitledVolume | None = None
    """What they are compared with; without, they stand alone."""
    last: TitledVolume | None = None
    """What the picture ends with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Writes the generated volumes of one command to one folder."""

    out: Path
    command: str
    space: Space
    models: LdaeInference
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

    def check(self, scan: InputScan) -> None:
        """Refuse early what could not be written.

        Raises
        ------
        ContractError
            If native space is asked for and the way back is not known.
        """
        if self.space == "native" and scan.native is None:
            raise ContractError(
                f"--space native: the way back of {scan.scan_id} is not known; give its"
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

    def write_once(
        self, generated: GeneratedVolumes, *, stem: str, record: dict[str, Any]
    ) -> tuple[Path, bool]:
        """Write unless a former run did; return the JSON's path, and whether it was written."""
        if self.has(stem, record):
            return self.document(stem), False
        self.prepare()
        return self.write(generated, stem=stem, record=record), True

    def write(
        self,
        generated: GeneratedVolumes,
        *,
        stem: str,
        record: dict[str, Any],
        scan: InputScan | None = None,
        frame: Callable[[], PictureFrame] = PictureFrame,
        watched: bool = True,
    ) -> Path:
        """Generate and write volumes batch by batch, then the picture, and last the JSON.

        Returns the JSON's path.

        Parameters
        ----------
        generated
            The volumes to generate.
        stem
            Start of every file name.
        record
            What to add to the JSON.
        scan
            The scan whose native space and brain mask are used.
        frame
            Returns real volumes for the picture; called when all volumes are made, so that what is
            among them need not be made by itself.
        watched
            Show progress, volume by volume.
        """
        from pipeline.figures.style import figure_style, save_figure

        files = VolumeWriter(
            space=self.space,
            grid_affine=np.asarray(self.models.autoencoder.grid.affine, dtype=np.float64),
            made_by=self.command,
            scan=scan,
        )
        outputs, pictured = self._write_volumes(generated, files, stem, watched=watched)
        picture = self.document(stem).with_suffix(".png")
        with figure_style():
            save_figure(_picture(pictured, frame()), picture)
        document = {
            **self._head(),
            **record,
            **generated.record,
            **generated.outcome(),
            "intensities": files.intensities(),
            "picture": picture.name,
            "outputs": outputs,
        }
        return self._write_document(stem, document)

    def document(self, stem: str) -> Path:
        """Return the path of the JSON of files that start with `stem`."""
        space = "" if self.space == "mni" else f"_space-{self.space}"
        return self.out / f"{self._named(stem)}_{self.command}{space}.json"

    def _write_volumes(
        self, generated: GeneratedVolumes, files: VolumeWriter, stem: str, *, watched: bool
    ) -> tuple[list[dict[str, Any]], dict[str, NDArray[np.float32]]]:
        """Write every volume; return the JSON's entries, and those that the picture shows."""
        image = None
        if self.space == "native" and files.scan is not None and files.scan.file is not None:
            image = read_native(files.scan.file)
        count = len(generated.labels)
        volumes = self._generate(generated)
        # Where the sampler shows its steps, a bar of volumes above them would be one too many.
        if watched and not self.models.watched and count > 1:
            volumes = progress(volumes, total=count, label=self.command)
        outputs: list[dict[str, Any]] = []
        pictured: dict[str, NDArray[np.float32]] = {}
        shown = _shown(count)
        for row, volume in enumerate(volumes):
            label = generated.labels[row]
            name = f"{self._named(stem)}_{label}_space-{SPACE_NAMES[self.space]}_T1w.nii.gz"
            is_brain = label not in generated.differences
            written = files.write(self.out / name, volume, is_brain=is_brain)
            outputs.append({"file": name} | generated.details[row])
            if image is not None and is_brain:
                outputs[row] |= files.correlations(written, image)
            if row in shown and is_brain:
                pictured[label] = volume
        return outputs, pictured

    def _generate(self, generated: GeneratedVolumes) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(generated.labels), self.models.batch_size):
            volumes = generated.generate(slice(start, start + self.models.batch_size))
            yield from np.asarray(volumes.numpy(), dtype=np.float32)

    def _write_document(self, stem: str, document: dict[str, Any]) -> Path:
        """Write the JSON over that of a former run; warn of images that are no longer in it."""
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

    def _former(self, stem: str) -> dict[str, Any]:
        """Return the JSON of a former run, or nothing where there is none that is whole."""
        try:
            document = json.loads(self.document(stem).read_text())
            _files(document)
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return dict(document)

    def _named(self, stem: str) -> str:
        return f"{stem}_{self.variant}" if self.variant else stem

    def _head(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "note": NOTE,
            "space": self.space,
            **self.models.record(),
        }


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


def _picture(volumes: dict[str, NDArray[np.float32]], frame: PictureFrame) -> "Figure":
    from pipeline.figures.brain_slices import Tile, qc_mosaic, reconstruction_strip

    if frame.last is not None:
        volumes = volumes | {frame.last.title: frame.last.volume}
    if frame.reference is None:
        tiles = [
            Tile(label, (volume * 255).round().astype(np.uint8))
            for label, volume in volumes.items()
        ]
        return qc_mosaic(tiles)
    title, reference = frame.reference
    return reconstruction_strip(reference, volumes, {"reference": title})
