"""A study from Python, by the names of the commands: `open_study(".").embed("new.nii.gz")`."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.cohort.manifest import read_manifest
from pipeline.models.places import BUNDLED, BUNDLED_LDAE, STUDY, STUDY_LDAE
from pipeline.stores.open_store import OpenStore
from pipeline.stores.volumes import VolumeStore, open_volumes
from schemas.errors import ContractError, ParamsError
from schemas.params import Params

if TYPE_CHECKING:  # torch takes seconds to import, and tables need none of it
    from pipeline.applications.inputs import InputScan
    from pipeline.models.inference import LdaeInference
    from pipeline.stores.latents import LatentStore

Floats = NDArray[np.float32]


class StudyFolder:
    """A study made by `pipeline init` and `dvc repro`, or as much of it as is there.

    What is asked for is read when it is asked for, and models are loaded once. Where the study has
    no models of its own, the bundled ones are used, as by the commands.
    """

    def __init__(self, folder: Path, *, device: str = "auto") -> None:
        self.folder = folder
        self.device = device

    def __repr__(self) -> str:
        return f"open_study({str(self.folder)!r})"

    @cached_property
    def params(self) -> Params:
        """The parameters of params.yaml."""
        file = self.folder / "params.yaml"
        try:
            return Params.model_validate(yaml.safe_load(file.read_text()) or {})
        except (OSError, yaml.YAMLError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise ParamsError(f"{file}: cannot be read ({reason:.160})") from error

    @cached_property
    def cohort(self) -> pd.DataFrame:
        """The manifest, one row a scan, indexed by scan_id."""
        table = read_manifest(self.folder / "data" / "cohort" / "manifest.csv")
        return table.set_index("scan_id")

    @cached_property
    def quality(self) -> pd.DataFrame:
        """The QC table, one row a scan, indexed by scan_id."""
        file = self.folder / "data" / "qc.csv"
        if not file.is_file():
            raise ContractError(f"{file}: no QC table; run `pipeline preprocess`")
        return pd.read_csv(file, dtype={"scan_id": str}).set_index("scan_id")

    @cached_property
    def volume_store(self) -> VolumeStore:
        """The store of preprocessed volumes."""
        return open_volumes(self.folder / "data" / "volumes.zarr")

    @cached_property
    def latent_store(self) -> "LatentStore":
        """The store of posteriors, for training of your own."""
        from pipeline.stores.latents import open_latents

        return open_latents(self.folder / "data" / "latents.zarr")

    @cached_property
    def semantics(self) -> pd.DataFrame:
        """y_sem, one row a scan, indexed by scan_id."""
        store = OpenStore(self.folder / "data" / "semantics.zarr", kind="semantics")
        index = pd.Index(store.attributes.scan_ids, name="scan_id")
        return pd.DataFrame(store.read("y_sem"), index=index)

    def volumes(self, scan_ids: Sequence[str]) -> Floats:
        """Return preprocessed volumes (scan, X, Y, Z), in [0, 1], of scans or of a single one.

        Raises
        ------
        ContractError
            If a scan is not in the store.
        """
        store = self.volume_store
        rows = store.rows_of(_listed(scan_ids))
        volumes = np.empty((len(rows), *store.attributes.grid.shape), np.float32)
        for number, row in enumerate(rows):
            volumes[number] = store.read_unit_interval(slice(row, row + 1))[0, 0]
        return volumes

    def latents(self, scan_ids: Sequence[str]) -> Floats:
        """Return posterior means (scan, channel, x, y, z), of scans or of a single one.

        Raises
        ------
        ContractError
            If a scan is not in the store.
        """
        mean = self.latent_store.load(_listed(scan_ids)).mean
        return np.asarray(mean.float().numpy())

    def embed(self, scan: str | Path) -> Floats:
        """Return y_sem (dim,) of a scan of the study, or of an image file.

        An image is preprocessed and encoded as the study's scans were.

        Raises
        ------
        ScanError
            If the file cannot be used or fails quality control.
        ContractError
            If the scan is not in the study, or stores and models do not belong together.
        """
        opened = self._open(scan)
        y_sem = self.models.embed(opened.z_0, opened.encoder_volume)
        return np.asarray(y_sem[0].cpu().numpy())

    def reconstruct(self, scan: str | Path) -> Floats:
        """Return the volume (X, Y, Z), in [0, 1], of a scan's own y_sem and inverted x_T.

        Raises
        ------
        As `embed`.
        """
        from pipeline.applications.reconstruct import reconstruct

        opened = self._open(scan)
        made = reconstruct(self.models, opened.z_0, opened.encoder_volume)
        return np.asarray(made.generate(slice(0, 1))[0].numpy())

    def manipulate(self, scan: str | Path, direction: str, scales: Sequence[float]) -> Floats:
        """Return one volume (X, Y, Z) a scale, in [0, 1], with y_sem moved along a direction.

        `direction` is the name of one of `pipeline probe` (`diagnosis:AD`); a scale counts standard
        deviations of the scans it was fitted on.

        Raises
        ------
        As `embed`; ContractError too where there is no such direction.
        """
        from pipeline.applications.manipulate import manipulate
        from pipeline.models.direction import FILE, OF_STUDY, find_direction

        ldae, file = self.models.ldae, self.folder / OF_STUDY
        of_model = ldae.path / FILE
        # Never that of the working folder, which may be another study.
        given = of_model if of_model.is_file() and not file.is_file() else file
        towards = find_direction(given, ldae.path, direction, config=ldae.config)
        opened = self._open(scan)
        made = manipulate(
            self.models, opened.z_0, towards, list(scales), volume=opened.encoder_volume
        )
        return np.asarray(made.generate(slice(0, len(scales))).numpy())

    @cached_property
    def models(self) -> "LdaeInference":
        """Autoencoder and LDAE, of the study or bundled, on the grid of its stores."""
        from pipeline.models.inference import load_models
        from pipeline.runtime.devices import resolve_device

        own = (self.folder / STUDY, self.folder / STUDY_LDAE)
        ae, ldae = (
            path if (path / "config.json").is_file() else bundled
            for path, bundled in zip(own, (BUNDLED, BUNDLED_LDAE), strict=True)
        )
        return load_models(
            ae,
            ldae,
            self.params.evaluate.model_copy(update={"other_steps": ()}),
            device=resolve_device(self.device),
            store=self.latent_store if self._has("latents") else None,
        )

    def _has(self, store: str) -> bool:
        return (self.folder / "data" / f"{store}.zarr" / "zarr.json").is_file()

    def _open(self, scan: str | Path) -> "InputScan":
        """Return a scan of the stores by its id, or an image by its path."""
        from pipeline.applications.runner import Opener
        from pipeline.applications.scan_names import is_image

        if not is_image(str(scan)) and not self._has("latents"):
            raise ContractError(
                f"{self.folder}: no latents to look {scan} up in; run `dvc repro`, or give an image"
            )
        opener = Opener(
            models=self.models,
            latents=self.latent_store if self._has("latents") else None,
            volumes=self.volume_store if self._has("volumes") else None,
            preprocess=self.params.preprocess,
        )
        return opener.open(str(scan))


def _listed(scan_ids: Sequence[str]) -> list[str]:
    """Return scan ids as a list; a text alone is one id, not its letters."""
    return [scan_ids] if isinstance(scan_ids, str) else list(scan_ids)


def open_study(folder: str | Path = ".", *, device: str = "auto") -> StudyFolder:
    """Return a study for reading and inference; nothing in it is changed.

    `device` is auto, cpu, cuda or cuda:N.

    Raises
    ------
    ContractError
        If the folder holds no study.
    """
    path = Path(folder)
    if not (path / "params.yaml").is_file():
        raise ContractError(
            f"{path}: expected a study (params.yaml in it); make one by `pipeline init`"
        )
    return StudyFolder(path, device=device)
