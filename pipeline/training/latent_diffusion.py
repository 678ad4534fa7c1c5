"""Train stage 1 (denoiser) and stage 2 (semantic encoder, gradient estimator) from latents.

Lightning takes longer to import than torch: it is imported where there is something to train.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.cohort.subjects import many_subjects_first, subjects_of
from pipeline.models.artefact import write_artefact
from pipeline.models.frozen import FrozenAutoencoder, FrozenDiffusion, FrozenLdae
from pipeline.models.latent_fit import check_latents_fit, own_latent_shape, used_on
from pipeline.models.ldae import (
    LatentDiffusion,
    Ldae,
    build_diffusion,
    build_ldae,
    encoder_config,
    unet_config,
)
from pipeline.models.mode_prior import ModePrior, bundled_prior
from pipeline.models.model_folder import check_model_folder, finished_metrics
from pipeline.models.pretrained import load_imagenet
from pipeline.models.starting_point import check_stage_1_start, check_start
from pipeline.nets.encoders import SemanticEncoder
from pipeline.nets.published import PublishedEncoder
from pipeline.nets.semantic import DeviationEncoder, VolumeSlicesEncoder
from pipeline.runtime.devices import available_memory
from pipeline.runtime.digests import digest_of
from pipeline.stores.latents import MEMORY_SHARE
from pipeline.stores.provenance import check_same_scans
from pipeline.stores.streaming import StreamedLatents
from pipeline.stores.verify import refuse_damaged
from pipeline.stores.volumes import VolumeStore
from pipeline.training.batches import WINDOW_CHUNKS
from pipeline.training.distributed import join, processes, wait
from pipeline.training.latent_batches import LatentData
from pipeline.training.mode_fit import fit_modes
from pipeline.training.plan import Plan
from pipeline.training.standardisation import (
    AnyLatents,
    estimate_standardisation,
)
from pipeline.training.tissue_fit import (
    FitCheckpoint,
    TissueSource,
    find_tissue_source,
)
from pipeline.training.training_volumes import ScanVolumes
from pipeline.training.voxel_latents import TrainingStore
from schemas.diffusion import LdaeParams, LdmParams
from schemas.errors import ContractError, ParamsError
from schemas.section import OptimParams

log = logging.getLogger(__name__)

PLACES = {"start_from", "source", "path", "fine_tune_steps"}
"""Parameters that say where weights lie, whose digest decides, and what is in `steps` by now."""


def train_denoiser(
    store: TrainingStore,
    scan_ids: dict[str, list[str]],
    params: LdmParams,
    out: Path,
    *,
    device: torch.device,
    autoencoder: FrozenAutoencoder | None = None,
    start: FrozenDiffusion | None = None,
) -> dict[str, Any]:
    """Train stage 1 and write it; return its metrics. The autoencoder only decodes pictures.

    With `start`, training begins with its weights and keeps its latent statistics.

    Raises
    ------
    ContractError
        If fewer than two training scans are in the store, a latent is not finite, or `start` has
        other sizes or does not work on the latents.
    """
    device = join(device)
    _check_autoencoder(store, autoencoder)
    if start is not None:
        check_stage_1_start(start, params, store)
    plan = _plan(params, [store.digest, scan_ids], store, scan_ids, start=start)
    check_model_folder(out, kind="ldm")
    finished = finished_metrics(out, kind="ldm", fingerprint=plan.fingerprint)
    wait()
    if finished is not None:
        return finished
    from pipeline.training.latent_modules import DenoiserModule
    from pipeline.training.lightning_run import discard_checkpoints, run_training
    from pipeline.training.pictures import decoder_of
    from pipeline.training.step_module import final_metrics

    latents = _load(store, scan_ids, params)
    architecture, diffusion = _first_diffusion(params, latents["train"], start)
    data = LatentData(diffusion, latents, params.posterior)
    module = DenoiserModule(diffusion.denoiser, params, data, started=start is not None)
    decode = decoder_of(autoencoder, diffusion.standardise)
    run_training(module, out, plan=plan, device=device, decode=decode)
    metrics = final_metrics(module)
    diffusion.denoiser.load_state_dict(module.averaged.state_dict())
    config = plan.record()
    config |= _config(architecture, params, store, latents, metrics, start)
    card = _card("Latent diffusion model (stage 1)", config)
    tensors = diffusion.state_dict()
    if processes().rank == 0:
        write_artefact(out, kind="ldm", tensors=tensors, config=config, metrics=metrics, card=card)
        discard_checkpoints(out)
    wait()
    return metrics


def _first_diffusion(
    params: LdmParams, train: AnyLatents, start: FrozenDiffusion | None
) -> tuple[dict[str, Any], LatentDiffusion]:
    """Return the architecture of stage 1, and its networks and statistics before training."""
    torch.manual_seed(params.seed)
    if start is not None:
        keys = ("unet", "diffusion", "prediction", "statistics")
        architecture = {key: start.config[key] for key in keys}
        architecture["unet"] = architecture["unet"] | {"dropout": params.denoiser.dropout}
        diffusion = build_diffusion(architecture)
        diffusion.load_state_dict(start.diffusion.state_dict())
        return architecture, diffusion
    statistics = estimate_standardisation(train, params.scale, sampled=params.posterior != "mean")
    architecture = {
        "unet": unet_config(params.denoiser, in_channels=len(statistics.shift)),
        "diffusion": params.diffusion.model_dump(),
        "prediction": params.prediction,
        "statistics": list(statistics.shift.shape),
    }
    diffusion = build_diffusion(architecture)
    diffusion.standardise.set_statistics(*statistics)
    return architecture, diffusion


def train_ldae(
    store: TrainingStore,
    scan_ids: dict[str, list[str]],
    frozen: FrozenDiffusion,
    params: LdaeParams,
    out: Path,
    *,
    device: torch.device,
    volumes: VolumeStore | None = None,
    autoencoder: FrozenAutoencoder | None = None,
    start: FrozenLdae | None = None,
) -> dict[str, Any]:
    """Train stage 2 on a frozen denoiser and write both; return the metrics.

    `volumes` are for encoders that read them, and for the tissue net where none is bundled for
    these latents; the autoencoder only decodes pictures. With `start`,
    training begins with its encoder and estimator; their modes, centre and spread are kept.

    Raises
    ------
    ContractError
        If the denoiser was trained on latents of another autoencoder or shape, there are too few
        scans, volumes are needed and absent, or `start` has other sizes or another stage 1.
    """
    device = join(device)
    _check_autoencoder(store, autoencoder)
    _check_denoiser(store, frozen)
    tissue = TissueSource() if start else find_tissue_source(store, params.encoder, volumes)
    prior = _mode_prior(store, params, start)
    if not params.encoder.reads_volumes:
        volumes = None
    elif volumes is None:
        raise ParamsError(
            f"train_ldae.encoder.kind {params.encoder.kind} reads volumes; give them with --volumes"
        )
    else:
        check_same_scans(store, volumes)
    volume_shape = volumes.attributes.grid.shape if volumes is not None else None
    if start is not None:
        check_start(start, params, store, stage_1=frozen, volume_shape=volume_shape)
    volumes_digest = volumes.digest if volumes is not None else None
    known = [store.digest, frozen.digest, scan_ids]
    known += filter(None, (volumes_digest, tissue.digest, prior.digest if prior else None))
    plan = _plan(
        params,
        known,
        store,
        scan_ids,
        start=start,
        denoiser=frozen.digest,
        volumes=volumes_digest,
        tissue=tissue.digest,
        modes=prior.digest if prior is not None else None,
    )
    check_model_folder(out, kind="ldae")
    finished = finished_metrics(out, kind="ldae", fingerprint=plan.fingerprint)
    wait()
    if finished is not None:
        return finished
    from pipeline.training.latent_modules import SemanticModule
    from pipeline.training.lightning_run import (
        discard_checkpoints,
        run_training,
        tissue_checkpoint,
    )
    from pipeline.training.pictures import decoder_of
    from pipeline.training.step_module import final_metrics

    latents = _load(store, scan_ids, params)
    base = {k: frozen.config[k] for k in ("unet", "diffusion", "prediction", "statistics")}
    architecture = base | {
        "encoder": start.config["encoder"]
        if start is not None
        else encoder_config(
            params.encoder, latent_shape=store.latent_shape, volume_shape=volume_shape
        )
    }
    torch.manual_seed(params.seed)
    ldae = build_ldae(architecture)
    ldae.diffusion = frozen.diffusion
    ldae.diffusion.requires_grad_(False).eval()
    if start is not None:
        ldae.encoder.load_state_dict(start.net.encoder.state_dict())
        ldae.estimator.load_state_dict(start.net.estimator.state_dict())
        if ldae.estimator.modes is not None:
            ldae.estimator.gain.fill_(1)  # fitted anew to what training makes of the field
    else:
        first = processes().rank == 0
        kept = FitCheckpoint(tissue_checkpoint(out), plan.fingerprint) if first else None
        _prepare_encoder(ldae, latents["train"], params, tissue, kept)
    if start is None or prior is not None:
        fit_modes(ldae, latents["train"], prior, started=start is not None)
    net = nn.ModuleDict({"encoder": ldae.encoder, "estimator": ldae.estimator})
    scan_volumes = None
    if volumes is not None:
        scan_volumes = {split: ScanVolumes(volumes, x.scan_ids) for split, x in latents.items()}
    posterior = frozen.config["posterior"]
    data = LatentData(ldae.diffusion, latents, posterior, scan_volumes)
    module = SemanticModule(net, params, data, started=start is not None)
    decode = decoder_of(autoencoder, ldae.diffusion.standardise)
    data.to(device)
    module.to(device)
    module.fit_trust()
    run_training(module, out, plan=plan, device=device, decode=decode)
    module.to(device)
    module.estimate_code_statistics()
    module.fit_gain()
    metrics = final_metrics(module) | module.inversion_health()
    module.to("cpu")
    config = plan.record()
    config |= _config(architecture, params, store, latents, metrics, start)
    config["posterior"] = posterior
    card = _card("Latent diffusion autoencoder (stages 1 and 2)", config)
    averaged = Ldae(ldae.diffusion, module.averaged["encoder"], module.averaged["estimator"])
    tensors = averaged.state_dict()
    if processes().rank == 0:
        write_artefact(out, kind="ldae", tensors=tensors, config=config, metrics=metrics, card=card)
        discard_checkpoints(out)
    wait()
    return metrics


def _prepare_encoder(
    ldae: Ldae,
    train: AnyLatents,
    params: LdaeParams,
    tissue: TissueSource,
    kept: FitCheckpoint | None = None,
) -> None:
    """Set the encoder's start: statistics and modes of latents, or ImageNet weights."""
    encoder: SemanticEncoder = ldae.encoder
    if isinstance(encoder, VolumeSlicesEncoder | PublishedEncoder):
        load_imagenet(encoder.backbone, params.encoder.weights)
        return
    if isinstance(encoder, DeviationEncoder) and encoder.tissue is not None:
        steps, seed = params.encoder.tissue_steps, params.seed
        tissue.prepare(encoder.tissue.net, train, steps=steps, seed=seed, checkpoint=kept)


def _mode_prior(
    store: TrainingStore, params: LdaeParams, start: FrozenLdae | None
) -> ModePrior | None:
    """Return the people whose modes count beside those of the study; None where there are none."""
    encoder, shape = params.encoder, store.latent_shape
    if encoder.reads_volumes or not (encoder.modes and encoder.prior_people):
        return None
    if start is None:
        return bundled_prior(store.attributes, count=encoder.prior_people, shape=shape)
    return ModePrior.of(start, count=encoder.prior_people, shape=own_latent_shape(start.config))


def _plan(
    params: OptimParams,
    known: list[Any],
    store: TrainingStore,
    scan_ids: dict[str, list[str]],
    *,
    start: FrozenDiffusion | FrozenLdae | None,
    **inputs: str | None,
) -> Plan:
    """Return the plan; `known` are the digests and lists that decide it beside the parameters."""
    inputs = {"latents": store.digest, "split": digest_of(scan_ids), **inputs}
    decisive = [params.model_dump(exclude=PLACES), *known]
    if start is not None:
        inputs["start"] = start.digest
        decisive.append(start.digest)
    return Plan(digest_of(decisive), params.model_dump(mode="json", exclude=PLACES), inputs)


def _check_autoencoder(store: TrainingStore, autoencoder: FrozenAutoencoder | None) -> None:
    if autoencoder is None or autoencoder.digest == store.attributes.digests["autoencoder"]:
        return
    raise ContractError(
        f"{store.path}: encoded by another autoencoder than {autoencoder.path}; give that one"
    )


def _check_denoiser(store: TrainingStore, frozen: FrozenDiffusion) -> None:
    remedy = "or run `pipeline train-ldm` on this store"
    check_latents_fit(frozen.config, store, model="the denoiser", otherwise=remedy)


def _load(
    store: TrainingStore, scan_ids: dict[str, list[str]], params: OptimParams
) -> dict[str, AnyLatents]:
    present = {
        split: [s for s in scan_ids[split] if s in store.row_of] for split in ("train", "val")
    }
    if len(present["train"]) < 2:
        raise ContractError(
            f"{store.path}: {len(present['train'])} training scans, expected at least 2;"
            " check the manifest's split and the quarantine list"
        )
    # Figures that take the first few validation scans are of many subjects then.
    order = many_subjects_first(subjects_of(present["val"]))
    present["val"] = [present["val"][i] for i in order]
    if not present["val"]:
        early = " and no early stop" if params.patience else ""
        log.warning("%s: no validation scan; no validation figures%s", store.path, early)
    refuse_damaged(store)
    needed = store.bytes_of(sum(len(ids) for ids in present.values()))
    if needed <= MEMORY_SHARE * available_memory():
        return {split: store.load(ids) for split, ids in present.items()}
    log.info("%s: %.1f GB do not fit in memory, read as needed", store.path, needed / 1e9)
    return {
        split: StreamedLatents(store, ids, chunks_in_memory=WINDOW_CHUNKS)
        for split, ids in present.items()
    }


def _config(
    architecture: dict[str, Any],
    params: OptimParams,
    store: TrainingStore,
    latents: dict[str, AnyLatents],
    metrics: dict[str, Any],
    start: FrozenDiffusion | FrozenLdae | None,
) -> dict[str, Any]:
    dumped = params.model_dump(mode="json", exclude=PLACES)
    started = {} if start is None else used_on(start.config, store)
    return architecture | {
        **started,
        "started_from": start.digest if start is not None else None,
        "posterior": dumped.get("posterior"),
        "params": dumped,
        "autoencoder_digest": store.attributes.digests["autoencoder"],
        "latents_digest": store.digest,
        "latent_shape": store.latent_shape,
        "grid": store.attributes.grid.document(),
        "contrast": store.attributes.contrast,
        "train_scans": len(latents["train"]),
        "metrics": {k: v for k, v in metrics.items() if k != "seconds"},
    }


def _card(title: str, config: dict[str, Any]) -> str:
    figures = "\n".join(f"- {k}: {v}" for k, v in config["metrics"].items())
    started = config["started_from"]
    origin = (
        f" Started from the model {started[:12]}, whose card tells of its data." if started else ""
    )
    return f"""# {title}

Trained on {config["train_scans"]} latents of shape {list(config["latent_shape"])} that the
autoencoder {config["autoencoder_digest"][:12]} made; it works with that autoencoder alone.{origin}

Last figures (losses; val_ on validation scans):

{figures}

Method: Lozupone et al. 2025 (arXiv 2504.08635), Zhang et al. 2022 (arXiv 2212.12990). Licence:
that of the data it was trained on; the code is Apache-2.0. Not a medical device.
"""
