"""The fitted probe along each direction, to be kept and applied to other scans."""

import numpy as np

from pipeline.models.direction import Readout
from pipeline.probes.linear import LinearProbe
from pipeline.probes.results import ProbeResults
from pipeline.probes.targets import DIRECTION_FEATURES


def readouts_of(results: ProbeResults) -> dict[str, Readout]:
    """Return the probe of every direction that was found."""
    readouts = {}
    for target in results.directions:
        probe, about = results.fits[target][DIRECTION_FEATURES], results.targets.get(target)
        if isinstance(probe, LinearProbe):
            readouts[target] = Readout(
                kind=probe.kind,
                slope=float(np.linalg.norm(probe.coef)),
                intercept=probe.intercept,
                classes=None if about is None else about.classes,
            )
    return readouts
