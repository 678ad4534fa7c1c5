"""Probes fitted once for all test processes."""

import pytest

from pipeline.probes.protocols import fit_probes
from pipeline.probes.results import ProbeResults
from tests.support.made_once import MadeOnce
from tests.support.probe_cohort import PARAMS, cohort


@pytest.fixture(scope="module")
def results(made_once: MadeOnce) -> ProbeResults:
    return made_once("probes", lambda _: fit_probes(*cohort(), PARAMS))
