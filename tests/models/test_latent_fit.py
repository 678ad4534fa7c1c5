"""Which latents a trained model works on, and what is said of the others."""

from types import SimpleNamespace

import pytest

from pipeline.models.latent_fit import check_latents_fit, own_latent_shape, used_on
from schemas.errors import ContractError
from tests.support.smaller_grid import smaller

OWN = smaller((0, 0, 0))
CONFIG = {
    "autoencoder_digest": "ae",
    "grid": OWN.document(),
    "latent_shape": [3, 4, 6, 5],
    "encoder": {"kind": "latent"},
}


def store(grid=OWN, shape=(3, 4, 6, 5), autoencoder="ae"):
    attributes = SimpleNamespace(grid=grid, contrast="T1w", digests={"autoencoder": autoencoder})
    return SimpleNamespace(path="l.zarr", attributes=attributes, latent_shape=shape)


@pytest.mark.parametrize(
    "latents",
    [store(), store(smaller((4, 4, 4)), (3, 2, 4, 3)), store(smaller((0, 4, 0)), (3, 4, 4, 5))],
)
def test_its_own_grid_and_smaller_ones_with_the_same_centre_are_taken(latents):
    check_latents_fit(CONFIG, latents, model="the LDAE")
    once = CONFIG | used_on(CONFIG, latents)
    assert tuple(once["latent_shape"]) == latents.latent_shape
    assert own_latent_shape(once) == (3, 4, 6, 5)
    check_latents_fit(once, store(), model="the LDAE")


MOVED = smaller().model_copy(update={"affine": OWN.affine})


@pytest.mark.parametrize(
    ("latents", "reason"),
    [
        (store(autoencoder="other"), "another autoencoder than the LDAE was trained"),
        (store(smaller((-4, 0, 0)), (3, 6, 6, 5)), "a larger grid; it takes its own and smaller"),
        (store(smaller((2, 0, 0)), (3, 3, 6, 5)), "shorter by a multiple of 8 voxels alone"),
        (store(smaller(zooms=2.0), (3, 2, 4, 3)), "another voxel size"),
        (store(shape=(8, 4, 6, 5)), "8 channels instead of 3"),
        (store(MOVED, (3, 2, 4, 3)), "another centre"),
    ],
)  # fmt: skip
def test_other_latents_are_refused_in_one_line_with_the_remedy(latents, reason):
    with pytest.raises(ContractError, match=reason) as refused:
        check_latents_fit(CONFIG, latents, model="the LDAE", otherwise="or do this")
    text = str(refused.value)
    assert text.startswith("l.zarr: ")
    assert text.endswith(", or do this")
    assert "\n" not in text
    assert reason.startswith("another autoencoder") or "16×24×20 of 3×3×3 mm" in text


def test_an_encoder_that_reads_volumes_takes_its_own_grid_alone():
    config = CONFIG | {"encoder": {"kind": "slices"}}
    check_latents_fit(config, store(), model="the LDAE")
    with pytest.raises(ContractError, match="reads volumes of that grid alone"):
        check_latents_fit(config, store(smaller(), (3, 2, 4, 3)), model="the LDAE")


def test_weights_of_others_cannot_be_trained_on_the_store():
    config = CONFIG | {"imported": {}}
    with pytest.raises(ContractError, match=r"preprocess to that grid and encode$"):
        check_latents_fit(config, store(smaller((-4, 0, 0)), (3, 6, 6, 5)), model="the LDAE")
