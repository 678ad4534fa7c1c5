"""Take a scan apart and put it together again."""

from jaxtyping import Float
from torch import Tensor

from pipeline.applications.generated_volumes import Outcome
from pipeline.metrics.gaussianity import latent_health
from pipeline.models.inference import LdaeInference


def reconstruct(
    models: LdaeInference,
    z_0: Float[Tensor, "1 C x y z"],
    volume: Float[Tensor, "1 X Y Z"] | None = None,
) -> Outcome:
    """Return the volume of a scan's own y_sem and inverted x_T."""
    codes = models.infer_codes(z_0, volume)
    record = {"x_T": "inverted", "inversion": latent_health(codes.x_T)}
    return Outcome(
        lambda rows: models.decode(models.sample(codes.y_sem[rows], codes.x_T[rows])),
        ["reconstruct"],
        [{}],
        record,
    )
