"""Brains that the page asks for: a request in words, and the volume that answers it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.applications.generate import GaussianPrior, generate
from pipeline.applications.generated_volumes import GeneratedVolumes, VolumesOfCodes, numbered
from pipeline.applications.inputs import InputScan, encoder_volumes
from pipeline.applications.interpolate import between
from pipeline.applications.manipulate import counterfactuals
from pipeline.applications.vary import variations
from pipeline.explore.inference import PREVIEW_STEPS, PageInference
from pipeline.models.direction import Direction
from pipeline.models.inference import Codes
from schemas.errors import ParamsError

Kind = Literal["scan", "move", "between", "vary", "noise"]
Quality = Literal["preview", "full"]
MOST_PEOPLE_KEPT = 8
FURTHEST = 12.0
"""Scale (SD) beyond which no brain is drawn."""
NEEDED: dict[Kind, tuple[str, ...]] = {
    "scan": ("scan",),
    "move": ("scan", "direction"),
    "between": ("scan", "other"),
    "vary": ("scan",),
    "noise": (),
}
"""What a request of a kind must say."""
POSSIBLE: dict[Kind, tuple[str, ...]] = {
    "scan": (),
    "move": ("scale",),
    "between": ("alpha",),
    "vary": ("seed",),
    "noise": ("seed", "prior"),
}
"""What it may say besides, and nothing else: else two names of one brain would be kept apart."""

Scan = Annotated[str, Field(max_length=300)]


class BrainRequest(BaseModel):
    """One brain: which kind, of whom, how far; what a kind does not use is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    scan: Scan | None = None
    other: Scan | None = None
    """Second scan, of `between`."""
    direction: Annotated[str, Field(max_length=300)] | None = None
    scale: Annotated[float, Field(ge=-FURTHEST, le=FURTHEST, allow_inf_nan=False)] = 0.0
    alpha: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    prior: bool = False
    """Of `noise`: draw y_sem too, from a Gaussian over the training scans."""
    quality: Quality = "full"

    @model_validator(mode="after")
    def _is_complete(self) -> "BrainRequest":
        needed = NEEDED[self.kind]
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.kind}: {', '.join(missing)} missing")
        allowed = {"kind", "quality", *needed, *POSSIBLE[self.kind]}
        foreign = sorted(self.model_fields_set - allowed)
        if foreign:
            raise ValueError(f"{self.kind}: does not use {', '.join(foreign)}")
        if self.kind == "between" and self.scan == self.other:
            raise ValueError("between: the same scan twice, expected two")
        return self

    @property
    def scans(self) -> list[str]:
        """Return the scans that it names."""
        return [scan for scan in (self.scan, self.other) if scan is not None]


@dataclass(slots=True, kw_only=True)
class BrainMaker:
    """Makes the volumes of requests; keeps what was inferred of the people last looked at."""

    models: PageInference
    directions: dict[str, Direction]
    prior: GaussianPrior | None
    """Of y_sem over the training scans, where there are enough."""
    codes: dict[tuple[Any, ...], Codes]
    """(scans, steps) to their y_sem and x_T; the last used come last."""

    def inference(self, quality: Quality) -> PageInference:
        """Return the models with the steps of a quality."""
        full = self.models.num_inference_steps
        return self.models.in_steps(min(PREVIEW_STEPS, full) if quality == "preview" else full)

    def generated(self, request: BrainRequest, scans: list[InputScan]) -> GeneratedVolumes:
        """Return what an application would make of the request, one volume.

        Raises
        ------
        ParamsError
            If the direction is not among the study's.
        """
        models = self.inference(request.quality)
        if request.kind == "noise":
            prior = self.prior if request.prior else None
            return generate(models, count=1, seed=request.seed, prior=prior)
        codes = self._codes(models, scans)
        if request.kind == "scan":
            return VolumesOfCodes(
                models=models,
                y_sem=codes.y_sem,
                x_T=codes.x_T,
                labels=["reconstruct"],
                details=[{}],
                record={},
            )
        if request.kind == "between":
            return between(models, codes, [request.alpha])
        if request.kind == "vary":
            name = scans[0].scan_id
            return variations(models, codes.y_sem, name=name, count=1, seed=request.seed)
        direction = self.directions.get(request.direction or "")
        if direction is None:
            known = ", ".join(self.directions) or "none"
            raise ParamsError(f"direction {request.direction}: not among those here: {known}")
        scales = [request.scale]
        labels = numbered("scale", scales, digits=2, sign="+")
        return counterfactuals(models, codes, direction, scales, labels=labels)

    def volume(self, request: BrainRequest, scans: list[InputScan]) -> NDArray[np.float32]:
        """Return the volume of a request, (X, Y, Z) in [0, 1]."""
        return np.asarray(self.generated(request, scans).volumes[0].numpy(), np.float32)

    def _codes(self, models: PageInference, scans: list[InputScan]) -> Codes:
        """Return the codes of scans, inferred in one batch as the applications do."""
        key = (*(scan.scan_id for scan in scans), models.num_inference_steps)
        if key in self.codes:
            self.codes[key] = self.codes.pop(key)
            return self.codes[key]
        z_0 = torch.cat([scan.z_0 for scan in scans])
        found = models.infer_codes(z_0, encoder_volumes(*scans))
        self.codes[key] = found
        while len(self.codes) > 2 * MOST_PEOPLE_KEPT:
            self.codes.pop(next(iter(self.codes)))
        return found
