"""The people of the bundled LDAE beside those of a study: their mean latent and principal modes."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.models.bundled_ldae import is_bundled_for, load_start
from pipeline.models.frozen import FrozenLdae
from pipeline.models.ldae import Standardise
from pipeline.nets.centred import centred
from pipeline.nets.principal_modes import OtherPeople
from pipeline.nets.semantic import DeviationEncoder
from schemas.stores import StoreAttributes

Field = Float[Tensor, "C X Y Z"]


@dataclass(frozen=True, slots=True)
class ModePrior:
    """Mean latent and modes of other people, in units of latents as the store holds them.

    A study of thirty people finds the mean brain and a few directions; what brains of the package
    differ in counts beside them as if so many people more had been scanned. On unseen people the
    modes of both together hold more than those of either (docs/method.md).
    """

    count: float
    mean: Field
    fields: Float[Tensor, "K C X Y Z"]
    """Principal modes, each as long as its standard deviation."""
    digest: str
    """Of the model that they come from."""

    @classmethod
    def of(cls, model: FrozenLdae, *, count: float, shape: tuple[int, ...]) -> Self | None:
        """Return the prior that a model's encoder holds, on latents of this shape.

        None if it holds no modes, or not on all of this grid.
        """
        encoder = model.net.encoder
        if not isinstance(encoder, DeviationEncoder) or encoder.modes is None:
            return None
        room = [own - n for own, n in zip(encoder.centre.shape, shape, strict=True)]
        if min(room) < 0 or room[0] or any(n % 2 for n in room):
            return None
        standardise, modes = model.net.diffusion.standardise, encoder.modes
        long = modes.modes * (modes.spread * modes.size).reshape(-1, 1, 1, 1, 1)
        fields = long * encoder.spread / standardise.scale_of(encoder.centre)
        mean = standardise.inverse(encoder.centre)
        grid = shape[1:]
        return cls(count, centred(mean, grid), centred(fields, grid), model.digest)

    def centre(self, own: Field, people: float) -> Field:
        """Return the mean latent of the study's people and these."""
        mean: Field = torch.lerp(own, self.mean, self.count / (people + self.count))
        return mean

    def around(self, centre: Field, standardise: Standardise, spread: Field) -> OtherPeople:
        """Return these people as deviations from a mean latent, in an encoder's units.

        `spread` is a standardised latent's for a deviation of one.
        """
        unit = standardise.scale_of(centre) / spread
        return OtherPeople(self.count, (self.mean - centre) * unit, self.fields * unit)


def bundled_prior(
    store: StoreAttributes, *, count: float, shape: tuple[int, ...]
) -> ModePrior | None:
    """Return the prior of the bundled LDAE if it is one of these latents."""
    if not count or not is_bundled_for(store):
        return None
    return ModePrior.of(load_start("bundled"), count=count, shape=shape)
