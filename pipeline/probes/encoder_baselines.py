"""Baselines of stage 2: the semantic encoder before training, its parts, and trained on labels."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.models.frozen import load_ldae
from pipeline.models.ldae import Ldae, build_ldae
from pipeline.nets.semantic import DeviationEncoder
from pipeline.probes.estimators import Head
from pipeline.probes.features import Features
from pipeline.probes.supervised_encoder import CODE_BATCH, SupervisedHead
from pipeline.stores.latents import LatentStore
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams

log = logging.getLogger(__name__)

PART_NAMES = {"modes": "mode_amounts", "tissue": "tissue_amounts", "summary": "summary"}
"""Feature set of each part of y_sem."""


def encoder_baselines(
    path: Path,
    latents: LatentStore,
    table: pd.DataFrame,
    params: ProbeParams,
    device: torch.device,
    *,
    y_sem: NDArray[np.floating],
    made_by: str,
    own: NDArray[np.floating] | None = None,
) -> tuple[Features, dict[str, Head]]:
    """Return what training the semantic encoder is held against, with heads where one is needed.

    `untrained` is y_sem of the encoder that stage 2 began with, the same modes and the same random
    network; `mode_amounts`, `tissue_amounts` and `summary` are the parts of y_sem that it has;
    `supervised_encoder`, where params ask for it, is the architecture trained on labels. What is
    not trained, the standardisation of input and output, is fitted on the training split.

    `made_by` is the digest of the LDAE that gave y_sem. `own` is y_sem of all scans by that very
    LDAE, where it is known: its amounts of modes are then not computed again.

    Raises
    ------
    ContractError
        If the folder holds no LDAE or another one, or a scan is not in the store.
    """
    ldae = load_ldae(path, device=torch.device("cpu"))
    if ldae.digest != made_by:
        raise ContractError(f"{path}: not the LDAE that y_sem was made by; run `pipeline embed`")
    encoder = ldae.net.encoder
    if not isinstance(encoder, DeviationEncoder):
        log.warning("%s: its encoder reads volumes, so its two baselines are left out", path)
        return {}, {}
    z_0 = ldae.net.diffusion.standardise(latents.load(list(table["scan_id"])).mean.float())
    features: Features = {PART_NAMES[name]: y_sem[:, p] for name, p in encoder.parts().items()}
    features = features if len(features) > 1 else {}
    train = (table["split"] == "train").to_numpy()
    # A training that started from a finished model did not begin with random weights.
    if np.count_nonzero(train) > 1 and not ldae.config.get("started_from"):
        features["untrained"] = untrained_codes(ldae.config, ldae.net, z_0, train, own=own)
    if not params.supervised_steps:
        return features, {}
    features["supervised_encoder"] = encoder.deviation(z_0).flatten(1).numpy()
    head = SupervisedHead(ldae.config["encoder"], device)
    return features, {"supervised_encoder": head}


@torch.inference_mode()
def untrained_codes(
    config: dict[str, Any],
    trained: Ldae,
    z_0: Float[Tensor, "B C X Y Z"],
    fit: NDArray[np.bool_],
    *,
    own: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Return codes (scan, dim) of the encoder that the training of this LDAE began with.

    The network is built with the seed of that training. Modes and standardisation of the input
    are those of the trained encoder, which no step changes; the output is standardised over the
    training scans `fit`, as the trained encoder's is. `own`, the trained encoder's codes
    (scan, dim), holds the same amounts of modes: with it only the summary is computed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["params"]["seed"])
        encoder = build_ldae(config).encoder.eval()
    assert isinstance(encoder, DeviationEncoder)
    assert isinstance(trained.encoder, DeviationEncoder)
    if encoder.tissue is not None and trained.encoder.tissue is not None:
        encoder.tissue.load_state_dict(trained.encoder.tissue.state_dict())
    fitted = dict(trained.encoder.named_buffers())
    for name, buffer in encoder.named_buffers():
        if not name.startswith("standardise."):
            buffer.copy_(fitted[name])
    known = z_0[torch.tensor(fit)] * trained.diffusion.standardise.margin
    encoder.estimate_output_statistics(_batches(known))
    if own is None:
        codes = torch.cat([encoder(part) for part in _batches(z_0)])
        return np.asarray(codes.numpy(), dtype=np.float32)
    summary = torch.cat([encoder.standardised_summary(part) for part in _batches(z_0)])
    same = np.array(own, dtype=np.float32)
    same[:, encoder.parts()["summary"]] = summary.numpy()
    return same


def _batches(z_0: Tensor) -> Iterator[Tensor]:
    """Yield batches of like size: one of a single scan has no variance to be standardised by."""
    yield from z_0.tensor_split(-(-len(z_0) // CODE_BATCH))
