"""Parameters of the report."""

from typing import Annotated

from pydantic import Field

from schemas.section import Positive, Section


class ReportParams(Section):
    """The HTML report."""

    title: str = "Latent diffusion autoencoder on T1w brain MRI"
    """Heading."""
    max_examples: Positive = 3
    """Scans shown of each kind of strip."""
    mosaic_scans: Positive = 16
    """Scans in the mosaic of quality control."""
    viewer_slices: Annotated[int, Field(ge=4, le=48)] = 28
    """Slices of each plane in the viewer."""
    viewer_pixels: Annotated[int, Field(ge=32, le=260)] = 190
    """Width of one panel of the viewer (pixels)."""
    picture_quality: Annotated[int, Field(ge=1, le=100)] = 72
    """WebP quality of brains inside the page; the files beside it are lossless."""
