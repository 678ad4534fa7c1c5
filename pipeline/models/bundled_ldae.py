"""The bundled LDAE, the choice of one for a command, and adoption into a study."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.models.artefact import read_artefact, write_artefact
from pipeline.models.direction import FILE as DIRECTIONS
from pipeline.models.finished_model import (
    EMPTY_LOG,
    LOG_FILE,
    copy_model,
    warn_of_replaced,
    write_bundled,
)
from pipeline.models.frozen import (
    FrozenDiffusion,
    FrozenLdae,
    encoders_copies,
    load_diffusion,
    load_ldae,
)
from pipeline.models.latent_fit import StoredLatents, check_latents_fit, used_on
from pipeline.models.model_folder import CARD, CONFIG, WEIGHTS, check_model_folder, read_config
from pipeline.models.places import BUNDLED_LDAE, STUDY_LDAE
from pipeline.runtime.digests import digest_of
from pipeline.runtime.files import lock_store, write_atomic
from schemas.errors import ContractError
from schemas.grid import Grid
from schemas.stores import StoreAttributes

MAX_BUNDLED_BYTES = 25_000_000
CPU = torch.device("cpu")
OF_STAGE_1 = ("unet", "diffusion", "prediction", "statistics", "posterior", "imported")
"""Entries of an LDAE's config that describe its stage 1 or where that came from."""
FIELDS = (".modes.modes", ".tissue.mean_latent", ".prior.variance")
"""Ends of the names of buffers that float16 serves: modes, what the tissue net reads, variances."""

Start = Literal["bundled"] | Path


def bundled_ldae() -> Path:
    """Return the folder of the bundled LDAE.

    Raises
    ------
    ContractError
        If this installation carries none.
    """
    if not (BUNDLED_LDAE / CONFIG).is_file():
        raise ContractError(
            f"{BUNDLED_LDAE}: this installation carries no LDAE; train one with `pipeline"
            " train-ldae`, or give the folder of one"
        )
    return BUNDLED_LDAE


def is_bundled_for(store: StoreAttributes) -> bool:
    """Return whether there is a bundled LDAE of these latents: same autoencoder, same voxels.

    Latents of its autoencoder from volumes of other voxels are other numbers of another size.
    """
    try:
        config = read_config(bundled_ldae() / CONFIG)
    except ContractError:
        return False
    same = config["autoencoder_digest"] == store.digests["autoencoder"]
    return bool(same and Grid.model_validate(config["grid"]).same_zooms(store.grid))


def find_ldae(given: Path | None) -> tuple[Path, str]:
    """Return the folder of the LDAE to use, and its description in words."""
    if given is not None:
        return given, f"{given}"
    if (STUDY_LDAE / CONFIG).is_file():
        return STUDY_LDAE, f"{STUDY_LDAE}, of this study"
    return bundled_ldae(), "the one bundled with the package"


def load_start(named: Start) -> FrozenLdae:
    """Return the LDAE that training of stage 2 starts from, on the CPU."""
    return load_ldae(bundled_ldae() if named == "bundled" else Path(named), device=CPU)


def load_start_of_stage_1(named: Start) -> FrozenDiffusion:
    """Return the stage 1 that training starts from, of an LDAE or a model of train-ldm."""
    folder = bundled_ldae() if named == "bundled" else Path(named)
    try:
        kind = read_config(folder / CONFIG).get("kind")
    except ContractError:
        kind = None
    if kind == "ldm":
        return load_diffusion(folder, device=CPU)
    ldae = load_ldae(folder, device=CPU)
    return FrozenDiffusion(ldae.net.diffusion, ldae.digest, ldae.config, folder)


def adopt_ldae(source: Path, out: Path, *, latents: StoredLatents) -> dict[str, Any]:
    """Copy a finished LDAE into the study of these latents; return its metrics.

    Weights and card are copied byte for byte, so the digest stays. The config says which grid the
    study has, and keeps the one trained on.

    Raises
    ------
    ContractError
        If the source is no LDAE or damaged, or does not work on the latents.
    """
    check_model_folder(out, kind="ldae")
    frozen = _fitting(source, latents)
    config = frozen.config | used_on(frozen.config, latents)
    config["fingerprint"] = digest_of(["adopted", frozen.digest, config["grid"]])
    with lock_store(out):
        warn_of_replaced(out, source, frozen.digest)
        if (source / DIRECTIONS).is_file():
            write_atomic(out / DIRECTIONS, (source / DIRECTIONS).read_bytes())
        return copy_model(source, out, config=config)


def adopt_stage_1(source: Path, out: Path, *, latents: StoredLatents) -> None:
    """Write the stage 1 of a finished LDAE as the study's model of train-ldm.

    Raises
    ------
    ContractError
        As `adopt_ldae` does.
    """
    check_model_folder(out, kind="ldm")
    frozen = _fitting(source, latents)
    tensors = {
        name.removeprefix("diffusion."): tensor
        for name, tensor in read_artefact(source, kind="ldae").tensors.items()
        if name.startswith("diffusion.")
    }
    known = {key: frozen.config[key] for key in OF_STAGE_1 if key in frozen.config}
    config = known | used_on(frozen.config, latents)
    config |= {
        "autoencoder_digest": frozen.config["autoencoder_digest"],
        "taken_from": frozen.digest,
        "fingerprint": digest_of(["adopted stage 1", frozen.digest, config["grid"]]),
    }
    card = (
        "# Latent diffusion model (stage 1)\n\n"
        f"The stage 1 of the LDAE {frozen.digest[:12]}, taken over as it is. Card of that LDAE:\n\n"
        f"{(source / CARD).read_text()}"
    )
    with lock_store(out):
        warn_of_replaced(out, source, frozen.digest, key="taken_from")
        write_artefact(out, kind="ldm", tensors=tensors, config=config, metrics={}, card=card)
        write_atomic(out / LOG_FILE, EMPTY_LOG)


def _fitting(source: Path, latents: StoredLatents) -> FrozenLdae:
    """Return the LDAE of a folder if it works on these latents."""
    frozen = load_ldae(source, device=CPU)
    check_latents_fit(frozen.config, latents, model=f"the LDAE of {source}")
    return frozen


def export_bundled_ldae(ldae: Path, out: Path, *, card: str | None = None) -> int:
    """Write an LDAE for the package; return the size of its weights (bytes).

    Trained weights and the fields of principal modes become float16. Statistics stay float32: where
    latents hardly vary, a shift rounded to float16 moves z_0 by up to 0.07 standard deviations, and
    variances of the network's summary come close to the smallest number that float16 holds in full.
    What encoder and estimator share is stored once. `card` replaces the card that training wrote.

    Raises
    ------
    ContractError
        If a weight has no float16 value, or the weights are larger than 25 MB.
    """
    check_model_folder(out, kind="ldae")
    artefact, net = read_artefact(ldae, kind="ldae"), load_ldae(ldae, device=CPU).net
    trained = dict(net.named_parameters())

    def halved(name: str, tensor: Tensor) -> Tensor:
        return tensor.half() if name in trained or name.endswith(FIELDS) else tensor

    twice = encoders_copies(artefact.tensors)
    tensors = {
        name: halved(name, tensor) for name, tensor in artefact.tensors.items() if name not in twice
    }
    write_bundled(artefact, tensors, out, config={}, most=MAX_BUNDLED_BYTES, card=card)
    load_ldae(out, device=CPU)
    return (out / WEIGHTS).stat().st_size
