"""Baselines of stage 2: the semantic encoder untrained, and trained on labels."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.models.frozen import load_ldae
from pipeline.nets.semantic import DeviationEncoder
from pipeline.probes.estimators import Head
from pipeline.probes.features import Features
from pipeline.probes.supervised_encoder import SupervisedHead, random_encoder_codes
from pipeline.stores.latents import LatentStore
from schemas.errors import ContractError
from schemas.evaluation import ProbeParams

log = logging.getLogger(__name__)


def encoder_baselines(
    path: Path,
    latents: LatentStore,
    table: pd.DataFrame,
    params: ProbeParams,
    device: torch.device,
    *,
    made_by: str,
) -> tuple[Features, dict[str, Head]]:
    """Return `random_encoder` and, where params ask for it, `supervised_encoder` with its head.

    Both have the architecture of the LDAE's semantic encoder and read the same latents. What is
    not trained, the standardisation of input and output, is fitted on the training split.

    `made_by` is the digest of the LDAE that gave y_sem.

    Raises
    ------
    ContractError
        If the folder holds no LDAE or another one, or a scan is not in the store.
    """
    ldae = load_ldae(path, device=torch.device("cpu"))
    if ldae.digest != made_by:
        raise ContractError(f"{path}: not the LDAE that y_sem was made by; run `pipeline embed`")
    config = ldae.config["encoder"]
    encoder = ldae.net.encoder
    if not isinstance(encoder, DeviationEncoder):
        log.warning("%s: its encoder reads volumes, so its two baselines are left out", path)
        return {}, {}
    z_0 = ldae.net.diffusion.standardise(latents.load(list(table["scan_id"])).mean.float())
    read = encoder.deviation(z_0).flatten(1).numpy()
    train = (table["split"] == "train").to_numpy()
    features: Features = {}
    if np.count_nonzero(train) > 1:
        features["random_encoder"] = random_encoder_codes(config, read, train, seed=params.seed)
    if not params.supervised_steps:
        return features, {}
    features["supervised_encoder"] = read
    return features, {"supervised_encoder": SupervisedHead(config, device)}
