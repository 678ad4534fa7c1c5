"""Base classes and types of the params sections: closed, frozen, documented fields."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Triple = tuple[Positive, Positive, Positive]
Precision = Literal["fp32", "bf16"]


class Section(BaseModel):
    """A params section: frozen once parsed, and closed to unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuse yes and no for numbers: `steps: yes` would be one step."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        kinds = re.findall(r"\b(?:int|float|bool)\b", str(annotation))
        if isinstance(value, bool) and kinds and "bool" not in kinds:
            raise ValueError("expected a number")
        return value


class OptimParams(Section):
    """What every trained model shares."""

    steps: Positive
    """Optimiser steps."""
    batch_size: Positive
    """Scans a step."""
    lr: Annotated[float, Field(gt=0)]
    """Peak learning rate (Adam), reached after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Steps of linear warm-up; then cosine decay to 5 % of the peak."""
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest gradient norm; 0 is no bound."""
    precision: Precision | Literal["auto"] = "auto"
    """Arithmetic of the forward pass. `auto`: bf16 where the device computes it natively, else
    fp32 (processors without AVX-512 bf16 emulate it, many times slower)."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """Decay of the weights' moving average, once an optimiser step; 0 switches it off."""
    ema_per: Literal["step", "micro_batch"] = "step"
    """When the average moves: once an optimiser step, or, as published, once a micro-batch."""
    accumulate: Positive = 1
    """Micro-batches that a step's batch is cut into, to save memory; the gradient is the same."""
    compile: bool = False
    """torch.compile; minutes of compilation first, and a C++ compiler on the CPU."""
    checkpoint_every: Positive = 100
    """Steps between resumable checkpoints and validations."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Validations without a better validation loss after which training ends, with the best
    averaged weights; 0 trains to the last step."""
    pictures_every: Annotated[int, Field(ge=0)] = 0
    """Validations between pictures of samples and reconstructions (stages 1 and 2); 0 is none."""
    log_to: tuple[Literal["tensorboard", "dvclive"], ...] = ()
    """Where curves and pictures go beside log.csv; both are optional extras."""
    seed: int = 0
    """Seed of initialisation, batch order and noise."""
