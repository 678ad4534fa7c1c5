"""The work folder: a small study a participant, so that any number of calls run side by side."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.bids_export.study import StudyFiles
from pipeline.cohort.candidates import FILE as CANDIDATES
from pipeline.cohort.candidates import Cohort, write_candidates
from pipeline.cohort.contrast import with_contrast
from pipeline.cohort.ingest import build_cohort
from pipeline.cohort.manifest import read_manifest, write_manifest
from pipeline.runtime.files import write_json
from schemas.errors import ContractError
from schemas.params import CohortParams, PreprocessParams

SPLIT = "train"
"""Split of every scan at participant level, where none is judged; the group level splits anew."""


@dataclass(frozen=True, slots=True)
class ParticipantWork:
    """The study of one participant: `<work>/sub-<label>`."""

    participant: str
    folder: Path

    @property
    def data(self) -> Path:
        """Return the folder of stores and tables."""
        return self.folder / "data"

    @property
    def manifest(self) -> Path:
        """Return the manifest."""
        return self.data / "cohort" / "manifest.csv"

    @property
    def volumes(self) -> Path:
        """Return the volume store."""
        return self.data / "volumes.zarr"

    @property
    def latents(self) -> Path:
        """Return the latent store."""
        return self.data / "latents.zarr"

    @property
    def semantics(self) -> Path:
        """Return the store of y_sem."""
        return self.data / "semantics.zarr"

    def files(self, source: Path, leave_out: tuple[str, ...]) -> StudyFiles:
        """Return what is exported of it."""
        return StudyFiles.of_folder(self.folder, source=source, leave_out=leave_out)

    def is_done(self, key: str) -> bool:
        """Return whether a former call made all stores of these very scans and models."""
        try:
            done = json.loads((self.folder / "done.json").read_text())
        except (OSError, ValueError):
            return False
        whole = all(store.is_dir() for store in (self.volumes, self.latents, self.semantics))
        return bool(whole and isinstance(done, dict) and done.get("key") == key)

    def mark_done(self, key: str) -> None:
        """Remember that all stores are made."""
        write_json(self.folder / "done.json", {"key": key})

    def forget_done(self) -> None:
        """Forget that all stores are made, before any is made otherwise."""
        (self.folder / "done.json").unlink(missing_ok=True)

    def check_contrast(self, contrast: str) -> None:
        """Refuse a folder that a former call made of images of another contrast.

        Raises
        ------
        ContractError
            Naming both contrasts.
        """
        former = contrast_in(self.manifest)
        if former not in (None, contrast):
            raise ContractError(
                f"{self.folder}: made of {former} images, this call takes {contrast};"
                f" --set cohort.suffix={former}, or give another -w and another output folder"
            )

    def write_cohort(
        self, scans: pd.DataFrame, refused: pd.DataFrame, candidates: pd.DataFrame
    ) -> pd.DataFrame:
        """Write the manifest; scans of former calls about other sessions stay. Return it."""
        table = scans.assign(split=SPLIT)
        if self.manifest.is_file():
            former = read_manifest(self.manifest)
            here = former["path"].map(lambda path: (self.manifest.parent / path).is_file())
            stays = former[here & ~former["scan_id"].isin(table["scan_id"])]
            if len(stays):
                table = pd.concat([table, stays], ignore_index=True).sort_values("scan_id")
        self.manifest.parent.mkdir(parents=True, exist_ok=True)
        write_manifest(table, self.manifest)
        mine = candidates[candidates["scan_id"].isin(scans["scan_id"])]
        write_candidates(mine, self.manifest.with_name(CANDIDATES))
        refused.to_csv(self.manifest.with_name("quarantine.csv"), index=False)
        return table


def contrast_in(manifest: Path) -> str | None:
    """Return the contrast of the scans of a manifest; None where there is none to be read."""
    if not manifest.is_file():
        return None
    return with_contrast(PreprocessParams(), read_manifest(manifest)).contrast or "T1w"


def check_folder(work: Path, bids_dir: Path, out_dir: Path) -> None:
    """Refuse a work folder among the raw data or among the derivatives: it fills with stores.

    Raises
    ------
    ContractError
        With a folder that would do.
    """
    whole, raw, out = work.resolve(), bids_dir.resolve(), out_dir.resolve()
    below = whole.relative_to(raw).parts if whole.is_relative_to(raw) else None
    if below is not None and below[:1] != ("derivatives",):
        where = f"in the dataset {bids_dir}"
    elif whole.is_relative_to(out):
        where = f"in the output folder {out_dir}"
    else:
        return
    raise ContractError(f"-w {work}: lies {where}, where stores do not belong; give another -w")


def collect(
    root: Path,
    params: CohortParams,
    participants: list[str],
    sessions: list[str],
    *,
    fresh: bool = True,
) -> Cohort:
    """Return the manifest of these participants, and what was refused.

    Unless `fresh`, it is for the labels: no digest is computed, and classes are looked at.

    Raises
    ------
    ContractError
        If they have no usable image.
    """
    wanted = dict(params.bids_filter)
    if sessions:
        wanted["session"] = [name.removeprefix("ses-") for name in sessions]
    bids = params.model_copy(update={"source": "bids", "input": root, "bids_filter": wanted})
    return build_cohort(
        bids, input_path=root, judged=not fresh, dry_run=not fresh, subjects=set(participants)
    )
