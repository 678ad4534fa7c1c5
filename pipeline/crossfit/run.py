"""Train both stages without each fold of subjects, and embed the fold by what never saw it."""

import logging
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import torch

from pipeline.crossfit.alignment import parts_of
from pipeline.crossfit.alignment_scans import AlignmentScans
from pipeline.crossfit.embedding import Embedder, embed_folds
from pipeline.crossfit.results import describe, write_out_of_fold
from pipeline.crossfit.study_folds import Folds, make_folds
from pipeline.encoding.embed import check_same_autoencoder, check_volumes
from pipeline.models.frozen import FrozenLdae, load_diffusion
from pipeline.models.starting_point import start_of_stage_1, start_of_stage_2, with_its_steps
from pipeline.runtime.files import write_json
from pipeline.stores.latents import LatentStore
from pipeline.stores.out_of_fold import STORE, SUMMARY, fold_folder
from pipeline.stores.volumes import VolumeStore
from pipeline.training.distributed import join, processes, wait
from pipeline.training.latent_diffusion import train_denoiser, train_ldae
from schemas.diffusion import SemanticEncoderParams
from schemas.errors import ParamsError
from schemas.params import Params
from schemas.results import CrossfitResult

log = logging.getLogger(__name__)


def cross_fit(
    store: LatentStore,
    manifest: pd.DataFrame,
    reference: FrozenLdae,
    params: Params,
    out: Path,
    *,
    device: torch.device,
    volumes: VolumeStore | None = None,
    alignment: AlignmentScans | None = None,
) -> CrossfitResult:
    """Write y_sem of every scan, by a model without its person, in the reference's space.

    Models of fold k are kept in out/fold-k; finished ones are not trained again. The summaries are
    aligned on the `alignment` scans, else on the scans that each fold's model was trained on: a
    rotation fitted to them tells nothing of the people left out, and without one the summaries of
    two models have nothing to do with each other.

    Raises
    ------
    ContractError
        If the reference is of other latents.
    ParamsError
        If there are fewer subjects than folds, the reference has another semantic encoder than
        train_ldae.encoder asks for, or it reads volumes and there are none.
    """
    device = join(device)
    folds = make_folds(manifest, store, params)
    check_same_autoencoder(store, reference)
    _check_encoder(reference, params.train_ldae.encoder)
    _check_reads(reference, volumes, alignment)
    if alignment is None:
        log.warning(
            "no alignment scans: each fold's summary is turned to that of the study's model on the"
            " scans that the fold was trained on; --alignment takes scans of others, as phantoms"
        )
    models = _train_folds(store, folds, params, out, device=device, volumes=volumes)
    result = CrossfitResult(folds=len(models))
    if processes().rank == 0:
        read = volumes if reference.net.encoder.reads == "volume" else None
        embedder = Embedder(store, folds.scan_ids, read, alignment, device, params.embed.batch_size)
        codes = embed_folds(embedder, folds.of_scan, models, reference)
        write_out_of_fold(out / STORE, store, folds, codes, embedder, reference.digest)
        parts = parts_of(reference.net)
        result = describe(folds, codes, parts, aligned_on=embedder.aligned_on)
        write_json(out / SUMMARY, result.model_dump())
        worst = min(codes.explained)
        if worst < 0:
            log.warning(
                "%s: turned, the summary of a fold still has little to do with the study's model's"
                " (explains %.2f of it); train stage 2 longer, or trust the amounts of modes",
                out,
                worst,
            )
    wait()
    return result


def _check_encoder(reference: FrozenLdae, asked: SemanticEncoderParams) -> None:
    encoder = reference.net.encoder
    modes, tissue, reads = 0, 0, "volume"
    if not asked.reads_volumes:
        modes, tissue, reads = asked.used_modes, asked.used_tissue_modes, "latent"
    parts = parts_of(reference.net)
    counts = [part.stop - part.start for name in ("modes", "tissue") if (part := parts.get(name))]
    found = (encoder.dim, *counts, *[0] * (2 - len(counts)), encoder.reads)
    if found != (asked.dim, modes, tissue, reads):
        raise ParamsError(
            f"--ldae: y_sem of {found[0]} numbers ({found[1]} modes) read from the {found[2]};"
            f" train_ldae.encoder asks for {asked.dim} ({modes} modes) read from the {reads}; give"
            " the LDAE that these parameters trained, or the parameters that it was trained with"
        )


def _check_reads(
    reference: FrozenLdae, volumes: VolumeStore | None, alignment: AlignmentScans | None
) -> None:
    if reference.net.encoder.reads != "volume":
        return
    if volumes is None:
        raise ParamsError("the LDAE's semantic encoder reads volumes; give them with --volumes")
    check_volumes(reference, volumes)
    if alignment is not None:
        raise ParamsError(
            f"--alignment {alignment.source}: holds latents, and this LDAE's semantic encoder reads"
            " volumes; leave it out, and each fold's own training scans are aligned on"
        )


def _train_folds(
    store: LatentStore,
    folds: Folds,
    params: Params,
    out: Path,
    *,
    device: torch.device,
    volumes: VolumeStore | None,
) -> list[Path]:
    """Train what is not finished, fold by fold; return the folder of each LDAE."""
    count, models, seconds = params.crossfit.folds, [], [0.0]
    for fold in range(count):
        folder, held_out = fold_folder(out, fold), int((folds.of_scan == fold).sum())
        left = timedelta(seconds=round(max(seconds) * (count - fold)))
        known = f", about {left} to go" if left else ""
        log.info("fold %d of %d: training without %d scans%s", fold + 1, count, held_out, known)
        started, scan_ids = time.monotonic(), folds.split_without(fold)
        _train_fold(store, scan_ids, params, folder, device=device, volumes=volumes)
        seconds.append(time.monotonic() - started)
        models.append(folder / "ldae")
    return models


def _train_fold(
    store: LatentStore,
    scan_ids: dict[str, list[str]],
    params: Params,
    folder: Path,
    *,
    device: torch.device,
    volumes: VolumeStore | None,
) -> None:
    """Train both stages as the study does, from where it starts."""
    ldm, ldae = params.train_ldm, params.train_ldae
    first = start_of_stage_1(ldm.start_from, ldm, store)
    train_denoiser(
        store,
        scan_ids,
        with_its_steps(ldm, first),
        folder / "ldm",
        device=device,
        start=first,
    )
    stage_1 = load_diffusion(folder / "ldm", device=device)
    second = start_of_stage_2(ldae.start_from, ldae, store, stage_1=stage_1)
    train_ldae(
        store,
        scan_ids,
        stage_1,
        with_its_steps(ldae, second),
        folder / "ldae",
        device=device,
        volumes=volumes,
        start=second,
    )
