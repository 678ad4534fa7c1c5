"""Perceptual weights of the user's, loaded strictly and without running code."""

import re
from pathlib import Path

import torch

from pipeline.artefact import load_strict
from pipeline.foreign.checkpoint import load_tensors
from pipeline.nets.lpips import Lpips


def load_lpips(path: Path, *, device: torch.device) -> Lpips:
    """Load LPIPS (SqueezeNet) from the state dict of `lpips.LPIPS(net="squeeze")`.

    Raises
    ------
    ContractError
        If the file is missing, holds code, or its tensors do not fit.
    """
    net = Lpips()
    tensors = {k: v for k, v in load_tensors(path).items() if not re.match(r"lins\.", k)}
    load_strict(net, tensors, source=path)  # `lins` repeats lin0 to lin6
    return net.to(device)
