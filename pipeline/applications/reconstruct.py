"""Reconstruct a scan from its own y_sem and x_T."""

from jaxtyping import Float
from torch import Tensor

from pipeline.applications.generated_volumes import GeneratedVolumes, VolumesOfCodes
from pipeline.metrics.gaussianity import latent_health
from pipeline.models.inference import LdaeInference


def reconstruct(
    models: LdaeInference,
    z_0: Float[Tensor, "1 C x y z"],
    volume: Float[Tensor, "1 X Y Z"] | None = None,
) -> GeneratedVolumes:
    """Return the volume of a scan's own y_sem and inverted x_T."""
    codes = models.infer_codes(z_0, volume)
    return VolumesOfCodes(
        models=models,
        y_sem=codes.y_sem,
        x_T=codes.x_T,
        labels=["reconstruct"],
        details=[{}],
        record={"x_T": "inverted", "inversion": latent_health(codes.x_T)},
    )
