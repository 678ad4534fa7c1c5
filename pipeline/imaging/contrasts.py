"""What a scan of each contrast looks like against the T1w template: order of tissues, correlation.

Measured on 8 FLAIR and 4 T2w images of 8 people: on all of them deepbet finds the brain, and the
affine registration, which maximises mutual information, ends in the right pose (Dice of the masks
0.957 to 0.970). So one method strips and registers every contrast; what differs is judged here.
"""

from dataclasses import dataclass

from schemas.params import Contrast, QcParams


@dataclass(frozen=True, slots=True)
class TissueOrder:
    """One tissue brighter than another, by standard deviations of the brain."""

    number: str
    """Of the QC table: white_grey or grey_fluid."""
    sign: int
    """1 if the first tissue of the number is the brighter one, -1 if it is the darker one."""
    fail: float
    """Below, the scan is of another contrast."""
    warn: float
    """Below, the contrast is suspicious."""
    words: str
    """The brighter tissue, then the darker one."""


@dataclass(frozen=True, slots=True)
class ContrastRule:
    """What is expected of scans of one contrast."""

    orders: tuple[TissueOrder, ...] = ()
    ncc_sign: int = 1
    """-1 where a sound scan is the negative of the template."""
    ncc_fail: float | None = None
    """None where the correlation tells nothing."""
    ncc_warn: float = 0.0


FLAIR = ContrastRule(
    # Of 8 images: -0.97 to 0.01, and 2.3 to 3.2; correlation 0.32 to 0.54.
    orders=(
        TissueOrder("white_grey", -1, -0.22, -0.15, "grey matter over white"),
        TissueOrder("grey_fluid", 1, 0.4, 1.0, "grey matter over fluid"),
    ),
    ncc_fail=0.15,
    ncc_warn=0.25,
)
T2W = ContrastRule(
    # Of 4 images: -0.61 to -0.43, and -2.7 to -1.8; correlation -0.32 to -0.21.
    orders=(
        TissueOrder("white_grey", -1, 0.0, 0.15, "grey matter over white"),
        TissueOrder("grey_fluid", -1, 0.0, 0.4, "fluid over grey matter"),
    ),
    ncc_sign=-1,
    ncc_fail=0.05,
    ncc_warn=0.15,
)
NOT_JUDGED = ContrastRule()
"""Contrasts of which no images were at hand: masks, pose and field of view are judged alone."""


def rule_of(contrast: Contrast, qc: QcParams) -> ContrastRule:
    """Return what is expected of a contrast; of T1w by the thresholds of the parameters."""
    if contrast == "FLAIR":
        return FLAIR
    if contrast == "T2w":
        return T2W
    if contrast != "T1w":
        return NOT_JUDGED
    return ContrastRule(
        orders=(
            TissueOrder(
                "white_grey", 1, qc.white_grey_fail, qc.white_grey_warn, "white matter over grey"
            ),
            TissueOrder(
                "grey_fluid", 1, qc.grey_fluid_fail, qc.grey_fluid_warn, "grey matter over fluid"
            ),
        ),
        ncc_fail=qc.ncc_fail,
        ncc_warn=qc.ncc_warn,
    )
