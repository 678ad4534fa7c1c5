"""A person's own regions, found in another process while this one goes on."""

import logging
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from types import TracebackType
from typing import Self

from scipy import sparse

from pipeline.imaging.deformation.syn import syn_deformation
from pipeline.regions.meter import RegionMeter, Volume
from pipeline.runtime.devices import available_cpus

log = logging.getLogger(__name__)


class OwnRegions:
    """Begins to find regions, and gives them when they are needed.

    ANTs has one thread, lest its sums vary, and holds Python's lock while it works: beside other
    work it needs a process. With one CPU, or the template's places, there is none.
    """

    def __init__(self, meter: RegionMeter) -> None:
        self.meter = meter
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.meter.own_regions and available_cpus() > 1:
            self.pool = ProcessPoolExecutor(1, get_context("spawn"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=kind is None, cancel_futures=True)

    def begin(self, before: Volume) -> Callable[[], sparse.csr_array]:
        """Start, and return what waits for the regions of a volume, as `RegionMeter.regions_of`.

        Raises
        ------
        ScanError
            When the regions are asked for, if there is no brain or ANTs fails.
        """
        if self.pool is None:
            return lambda: self.meter.regions_of(before)
        way = self.pool.submit(syn_deformation, before, self.meter.template(), self.meter.affine)

        def regions() -> sparse.csr_array:
            try:
                return self.meter.regions_along(way.result())
            except BrokenProcessPool:
                log.warning("regions: the process beside this one ended; going on without it")
                self.pool = None
                return self.meter.regions_of(before)

        return regions
