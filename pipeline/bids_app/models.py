"""The two models of a call, loaded once, and what they do to a participant's volumes."""

from pathlib import Path
from typing import Any

import torch

from pipeline.bids_app.work import ParticipantWork
from pipeline.encoding.embed import check_same_autoencoder, embed_latents
from pipeline.encoding.run import check_intensity, encode_volumes
from pipeline.models.frozen import for_volumes, intensity_rule, load_autoencoder, load_ldae, on_grid
from pipeline.runtime.devices import resolve_device
from pipeline.stores.latents import open_latents
from pipeline.stores.volumes import open_volumes
from schemas.errors import ContractError
from schemas.grid import Grid
from schemas.params import Params


class Models:
    """An autoencoder and an LDAE trained on its latents.

    Raises
    ------
    ContractError
        If they do not belong together.
    """

    def __init__(self, autoencoder: Path, ldae: Path, device: "torch.device | str") -> None:
        self.device = resolve_device(device) if isinstance(device, str) else device
        self.ldae = load_ldae(ldae, device=self.device)
        frozen = load_autoencoder(autoencoder, device=self.device)
        if frozen.digest != self.ldae.config["autoencoder_digest"]:
            raise ContractError(
                f"{ldae}: trained on latents of another autoencoder than {autoencoder}; give the"
                " two that belong together"
            )
        self.precision: str | None = None
        """Arithmetic of the encoder, once a participant is encoded."""
        self.grid = Grid.model_validate(self.ldae.config["grid"])
        self.autoencoder = on_grid(frozen, self.grid)

    @property
    def intensity(self) -> dict[str, Any]:
        """Return the parameters of preprocessing that the autoencoder demands."""
        return intensity_rule(self.autoencoder.config)

    def encode_and_embed(self, work: ParticipantWork, params: Params) -> None:
        """Write latents and y_sem of a participant; what is up to date is left alone."""
        volumes = open_volumes(work.volumes)
        check_intensity(volumes, self.autoencoder)
        autoencoder = for_volumes(self.autoencoder, volumes.attributes.grid)
        encode = params.encode
        if self.precision is not None:
            encode = encode.model_copy(update={"precision": self.precision})
        # The stores are ours, made again from the images at any time: nothing is lost.
        encode_volumes(volumes, autoencoder, work.latents, encode, device=self.device, replace=True)
        latents = open_latents(work.latents)
        # `auto` is judged on the first participant, and is the same for all that follow.
        self.precision = latents.attributes.params["encode"]["precision"]
        check_same_autoencoder(latents, self.ldae, any_contrast=params.embed.any_contrast)
        reads_volumes = self.ldae.net.encoder.reads == "volume"
        embed_latents(
            latents,
            self.ldae,
            work.semantics,
            params.embed,
            device=self.device,
            volumes=volumes if reads_volumes else None,
        )
