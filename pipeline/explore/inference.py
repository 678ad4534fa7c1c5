"""Inference for a page: what no slider changes is kept, and a newer request stops an older one."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.samplers import Model, invert
from pipeline.models.inference import LdaeInference
from pipeline.nets.denoiser import Trunk

PREVIEW_STEPS = 4
"""With 3, a preview differs from the brain by as much as a slider moves it (docs/explore.md)."""
MOST_KEPT = 4
"""Starts of samplers whose features are kept."""

Denoised = tuple[Trunk, Tensor]


class SupersededError(Exception):
    """A newer request has come in; what was under way is given up."""


@dataclass(slots=True)
class KeptFeatures:
    """The denoiser's features at the x_T of people who are looked at.

    The first step of a sampler starts at x_T whatever y_sem is, so its trunk, most of the work, is
    the same for every place of a slider.
    """

    kept: list[tuple[Tensor, Tensor, Denoised]] = field(default_factory=list)
    """x_T, t, features; the last used come last."""

    def find(self, x_t: Tensor, t: Tensor) -> Denoised | None:
        """Return the features at x_t and t, if they are kept."""
        for index, (x_T, at, features) in enumerate(self.kept):
            if x_T.shape == x_t.shape and torch.equal(at, t) and torch.equal(x_T, x_t):
                self.kept.append(self.kept.pop(index))
                return features
        return None

    def keep(self, x_t: Tensor, t: Tensor, features: Denoised) -> None:
        """Keep the features of one start, and let the oldest go."""
        self.kept.append((x_t, t, features))
        del self.kept[:-MOST_KEPT]


@dataclass(slots=True)
class Evaluations:
    """Predicted noise of an inversion, in the order of its steps.

    A drag gives up the inversion that is under way. The next one of the same person takes the same
    steps, so it begins where that one ended.
    """

    of: tuple[Tensor, Tensor | None, int] | None = None
    """z_0, y_sem and steps of the inversion."""
    made: list[Tensor] = field(default_factory=list)
    """One (B, C, X, Y, Z) a step."""

    def begin(self, z_0: Tensor, y_sem: Tensor | None, steps: int) -> None:
        """Keep what was made for the same inversion; of another one, nothing is of use."""
        if self.of is None or self.of[2] != steps or not _same((z_0, y_sem), self.of[:2]):
            self.of, self.made = (z_0, y_sem, steps), []

    def replayed(self, model: Model) -> Model:
        """Return the model, which is not asked for what was made already."""
        step = 0

        def eps(x_t: Tensor, t: Tensor) -> Tensor:
            nonlocal step
            if step == len(self.made):
                self.made.append(model(x_t, t))
            step += 1
            return self.made[step - 1]

        return eps


def _same(one: tuple[Tensor | None, ...], other: tuple[Tensor | None, ...]) -> bool:
    return all(
        (a is None and b is None)
        or (a is not None and b is not None and a.shape == b.shape and torch.equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PageInference(LdaeInference):
    """The inference of the applications, with the same numbers, for one page."""

    go_on: Callable[[], None]
    """Called at every step; raises SupersededError where nobody waits any more."""
    features: KeptFeatures = field(default_factory=KeptFeatures)
    inverted: Evaluations = field(default_factory=Evaluations)

    @classmethod
    def of(cls, models: LdaeInference, go_on: Callable[[], None]) -> "PageInference":
        """Return the models of an application, for a page."""
        names = LdaeInference.__dataclass_fields__
        return cls(**{name: getattr(models, name) for name in names}, go_on=go_on)

    def in_steps(self, steps: int) -> "PageInference":
        """Return the same models with another number of steps; features are shared."""
        return replace(self, num_inference_steps=steps)

    @torch.inference_mode()
    def invert(
        self, y_sem: Float[Tensor, "B D"] | None, z_0: Float[Tensor, "B C X Y Z"]
    ) -> Float[Tensor, "B C X Y Z"]:
        """Return the x_T from which `sample` gives z_0; one that was given up is gone on with."""
        self.inverted.begin(z_0, y_sem, self.num_inference_steps)
        return invert(
            self.inverted.replayed(self.noise_model(y_sem)),
            z_0,
            self.ldae.net.diffusion.schedule,
            sampler=self.sampler,
            num_inference_steps=self.num_inference_steps,
            clip_x0=self.clip_x0,
        )

    def noise_model(
        self, y_sem: Float[Tensor, "B D"] | None, *, modes_alone: bool = False
    ) -> Model:
        """Return the predicted noise; the features of a sampler's first step are kept."""
        # Zero-argument super() does not work in a dataclass with slots.
        plain = LdaeInference.noise_model(self, y_sem, modes_alone=modes_alone)
        net = self.ldae.net
        guides = y_sem is not None and not modes_alone and self.stop_percent < 1
        first = net.diffusion.schedule.num_train_timesteps - 1

        def eps(x_t: Tensor, t: Tensor) -> Tensor:
            self.go_on()
            if not guides or float(t[0]) < first:
                return plain(x_t, t)
            assert y_sem is not None
            features = self.features.find(x_t, t)
            if features is None:
                features = net.denoised(x_t, t)
                self.features.keep(x_t, t, features)
            return net.guided(features, x_t, t, [y_sem])[0]

        return eps
