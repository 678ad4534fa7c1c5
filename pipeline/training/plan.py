"""Parameters and inputs of a training, and how they differ from a former one in the folder."""

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.models.model_folder import CONFIG, read_config
from pipeline.runtime.files import write_json
from schemas.changes import changes, listed
from schemas.errors import ContractError

log = logging.getLogger(__name__)

PLAN = "plan.json"
CHECKPOINT = "last.ckpt"
OTHERWISE = "with other parameters or inputs, of which nothing was recorded"


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters and inputs of a training."""

    fingerprint: str
    """Digest of all that decides the outcome."""
    params: dict[str, Any]
    """As JSON has them."""
    inputs: dict[str, str | None]
    """Name of each input to its digest."""

    def record(self) -> dict[str, Any]:
        """Return the plan as the model's config records it."""
        return {"fingerprint": self.fingerprint, "inputs": self.inputs}


def discard_other_plans(work: Path, out: Path, plan: Plan) -> None:
    """Remove the checkpoints of another plan; log what differs from it and from the model."""
    former = _read(work / PLAN)
    if former.get("fingerprint") == plan.fingerprint:
        return
    lost = _steps(work / CHECKPOINT)
    if lost:
        log.warning(
            "%s: %d steps trained otherwise are discarded, training starts anew (%s)",
            work,
            lost,
            _differences(former, plan),
        )
    shutil.rmtree(work, ignore_errors=True)
    write_json(
        work / PLAN,
        {"fingerprint": plan.fingerprint, "params": plan.params, "inputs": plan.inputs},
    )
    try:
        model = read_config(out / CONFIG)
    except ContractError:
        return
    log.warning(
        "%s: holds a model made otherwise (%s); trained anew, and replaced at the end",
        out,
        _differences(model, plan),
    )


def _differences(former: dict[str, Any], plan: Plan) -> str:
    differences = changes(former["params"], plan.params) if "params" in former else []
    before = former.get("inputs", {})
    differences += [
        f"other {name}"
        for name in dict.fromkeys([*plan.inputs, *before])
        if before and before.get(name) != plan.inputs.get(name)
    ]
    return listed(differences) if differences else OTHERWISE


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _steps(checkpoint: Path) -> int:
    """Return the steps of a checkpoint; 0 where it is none."""
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        return int(state["global_step"])
    except Exception:  # noqa: BLE001 (whatever a damaged file raises: it is discarded anyway)
        return 0
