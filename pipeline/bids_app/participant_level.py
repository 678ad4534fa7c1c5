"""Participant level: from images to volumes, latents, y_sem and BIDS-Derivatives."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipeline import __version__
from pipeline.bids_app.work import ParticipantWork, check_folder, collect
from pipeline.bids_export.dataset import check_place
from pipeline.bids_export.export import export_bids
from pipeline.cohort.candidates import FILE as CANDIDATES
from pipeline.cohort.candidates import read_candidates
from pipeline.cohort.contrast import study_contrast
from pipeline.cohort.manifest import read_manifest
from pipeline.imaging.preprocess_scan import METHOD_VERSION
from pipeline.models.contrast import EMBED_ANY, ENCODE_ANY, check_contrast
from pipeline.models.model_folder import read_config
from pipeline.preprocessing.run import preprocess_cohort
from pipeline.runtime.digests import digest_file, digest_of
from pipeline.runtime.progress import progress
from pipeline.workers.dask_client import dask_client
from schemas.errors import ContractError, PipelineError
from schemas.params import Params, PreprocessParams

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

WORKER_MB = 2000
"""Memory (MB) of a worker process that preprocesses a scan of 1 mm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a call asks for."""

    bids_dir: Path
    out_dir: Path
    work: Path
    participants: list[str]
    sessions: list[str] = field(default_factory=list)
    params: Params
    autoencoder: Path
    """Model folder."""
    ldae: Path
    workers: int = 1

    def model_digests(self) -> list[str]:
        """Return the digests of both models' descriptions, which hold those of their weights.

        Raises
        ------
        ContractError
            If a folder is no model.
        """
        files = [folder / "config.json" for folder in (self.autoencoder, self.ldae)]
        for file in files:
            if not file.is_file():
                raise ContractError(f"{file}: missing; expected a model folder of this project")
        return [digest_file(file) for file in files]

    def check_contrast(self, contrast: str) -> None:
        """Refuse images of another contrast than the models', before hours of preprocessing.

        Raises
        ------
        ContractError
            Unless the parameters allow it.
        """
        models = (
            (self.autoencoder, "the autoencoder", self.params.encode.any_contrast),
            (self.ldae, "the LDAE", self.params.embed.any_contrast),
        )
        for folder, name, asked in models:
            if not asked:
                check_contrast(
                    read_config(folder / "config.json"),
                    contrast,
                    source=self.bids_dir,
                    model=f"{name} {folder}",
                    allowed_by=[ENCODE_ANY, EMBED_ANY],
                )


@dataclass(frozen=True, slots=True)
class ParticipantSummary:
    """Numbers of one call."""

    scans: int
    """Scans in the stores of the participants of this call."""
    done_before: int
    """Participants with nothing to do but their derivatives."""
    failed: dict[str, str]
    """Participant → why it could not be finished."""


def run_participants(request: Request, device: "torch.device | str" = "auto") -> ParticipantSummary:
    """Bring participants from BIDS images to BIDS-Derivatives; what is done stays done.

    One participant that cannot be finished never stops the others. Calls about different
    participants may run at the same time with the same folders.

    Raises
    ------
    ContractError
        If no participant has a usable image, or the folders are none to work in.
    """
    check_place(request.out_dir, request.bids_dir)
    check_folder(request.work, request.bids_dir, request.out_dir)
    digests = request.model_digests()
    contrast = study_contrast(request.params.cohort)
    request.check_contrast(contrast)
    cohort = collect(
        request.bids_dir, request.params.cohort, request.participants, request.sessions
    )
    manifest, refused = cohort.manifest, cohort.refused
    failed = _without_scans(request.participants, manifest, refused)
    keys: dict[ParticipantWork, str] = {}
    for participant in request.participants:
        if participant in failed:
            continue
        work = ParticipantWork(participant, request.work / participant)
        work.check_contrast(contrast)
        mine = manifest[manifest["subject_id"] == participant]
        table = work.write_cohort(mine, refused[_rows_of(refused, participant)], cohort.candidates)
        keys[work] = _key(table, request.params, digests)
    todo = [work for work, key in keys.items() if not work.is_done(key)]
    failed |= _make_stores(todo, request, device) if todo else {}
    for work in todo:
        if work.participant not in failed:
            work.mark_done(keys[work])
    scans = 0
    for work in keys:
        if work.participant in failed:
            continue
        files = work.files(request.bids_dir, tuple(request.params.cohort.leave_out))
        try:
            scans += export_bids(files, request.out_dir).scans
        except PipelineError as error:
            failed[work.participant] = str(error)
    return ParticipantSummary(scans, len(keys) - len(todo), failed)


def _without_scans(
    participants: Sequence[str], manifest: pd.DataFrame, refused: pd.DataFrame
) -> dict[str, str]:
    """Return participant → the reason why none of its images can be used."""
    have = set(manifest["subject_id"])
    reasons = {}
    for participant in participants:
        if participant not in have:
            mine = refused[_rows_of(refused, participant)]
            why = str(mine["reason"].iloc[0]) if len(mine) else "no image that could be taken"
            reasons[participant] = why
    return reasons


def _rows_of(refused: pd.DataFrame, participant: str) -> "pd.Series[bool]":
    ids = refused["scan_id"].astype(str)
    return (ids == participant) | ids.str.startswith(f"{participant}_")


def _key(table: pd.DataFrame, params: Params, digests: list[str]) -> str:
    """Return the digest of all that decides a participant's stores."""
    scans = sorted(zip(table["scan_id"], table["source_digest"], strict=True))
    sections = [
        params.preprocess.content(),
        params.preprocess.qc.model_dump(mode="json"),
        params.encode.model_dump(mode="json"),
    ]
    return digest_of([__version__, METHOD_VERSION, scans, sections, digests])


def _make_stores(
    todo: Sequence[ParticipantWork], request: Request, device: "torch.device | str"
) -> dict[str, str]:
    """Preprocess, encode and embed participants; return those that failed, with the reason."""
    from pipeline.bids_app.models import Models

    # Loaded before hours of preprocessing: what is wrong with a model is said at once.
    models = Models(request.autoencoder, request.ldae, device)
    for work in todo:
        work.forget_done()
    params = request.params.preprocess.model_copy(
        update={"grid": models.grid.as_params(), **models.intensity}
    )
    failed: dict[str, str] = {}
    ready = []
    for work, fault in _preprocess_all(todo, params, request.workers, str(device)):
        if fault is None:
            ready.append(work)
        else:
            log.warning("%s: %s", work.participant, fault)
            failed[work.participant] = fault
    for work in progress(ready, total=len(ready), label="Encode, embed"):
        try:
            models.encode_and_embed(work, request.params)
        except PipelineError as error:
            log.warning("%s: %s", work.participant, error)
            failed[work.participant] = str(error)
    return failed


def _preprocess_all(
    todo: Sequence[ParticipantWork], params: PreprocessParams, workers: int, device: str
) -> Iterator[tuple[ParticipantWork, str | None]]:
    """Yield every participant as it is preprocessed, with what went wrong.

    Several participants share the worker processes; of one alone, its scans do.
    """
    dumped = params.model_dump(mode="json")
    if len(todo) == 1 or workers == 1:
        for work in todo:
            yield work, preprocess_one(work, dumped, workers, device)
        return
    from distributed import as_completed

    with dask_client(min(workers, len(todo)), None) as client:
        futures = {
            client.submit(preprocess_one, work, dumped, 1, device, pure=False): work
            for work in todo
        }
        for future in as_completed(list(futures)):
            work = futures[future]
            try:
                yield work, future.result()
            except Exception as error:  # noqa: BLE001 (a worker died over this participant)
                yield work, f"worker died ({type(error).__name__}); is memory short?"


def preprocess_one(
    work: ParticipantWork, params: dict[str, Any], workers: int, device: str
) -> str | None:
    """Preprocess the scans of one participant; return what went wrong, or None."""
    refused = work.manifest.with_name("quarantine.csv")
    try:
        preprocess_cohort(
            read_manifest(work.manifest),
            PreprocessParams.model_validate(params),
            manifest_dir=work.manifest.parent,
            out=work.volumes,
            qc_csv=work.data / "qc.csv",
            quarantine_csv=work.data / "quarantine.csv",
            prior_quarantine=pd.read_csv(refused, dtype=str),
            workers=workers,
            device=device,
            candidates=read_candidates(work.manifest.with_name(CANDIDATES)),
        )
    except PipelineError as error:
        return str(error)
    return None


def workers_within(cpus: int, memory_mb: int | None) -> int:
    """Return how many worker processes the processors and the memory (MB) allow, at least one."""
    return cpus if memory_mb is None else max(1, min(cpus, memory_mb // WORKER_MB))
