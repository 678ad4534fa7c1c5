"""Measure every case by region, sum the people up, and write tables, maps and pictures."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from isal import igzip
from numpy.typing import NDArray

from pipeline.figures.region_maps import region_figures
from pipeline.figures.style import save_figure
from pipeline.imaging.geometry import sample
from pipeline.regions.cases import Case
from pipeline.regions.meter import Change, RegionMeter
from pipeline.regions.own_regions import OwnRegions
from pipeline.regions.summary import latex_of, summarise, table_of
from pipeline.runtime.devices import available_cpus
from pipeline.runtime.files import write_atomic, write_json
from schemas.errors import ScanError
from schemas.results import RegionEffect, RegionMetrics

XFORM_CODES = {"mni": 4, "native": 1}
PICTURED = 3
"""Groups, the first ones, of which pictures are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRun:
    """How cases are measured, and what is written."""

    meter: RegionMeter
    out: Path
    space: str = "mni"
    """`mni` or `native`: whose millilitres, and the space of the maps."""
    maps: bool = False
    """Write the maps of each case as NIfTI."""

    def measure(self, cases: Iterable[Case], metrics: RegionMetrics) -> pd.DataFrame:
        """Return a row a case, group and region; cases that fail are named in `metrics.skipped`.

        A case's own regions are found in a process beside this one, and its courses are measured at
        once by threads, where there are several CPUs.
        """
        tables = []
        with OwnRegions(self.meter) as own_regions:
            for case in cases:
                native = case.native if self.space == "native" else None
                size = 1.0 if native is None else native.head_per_template
                try:
                    for group, change in self._changes(case, own_regions, size).items():
                        known = {"scan_id": case.scan_id, "subject_id": case.subject_id}
                        about = known | {"group": group} | case.details
                        for place, (name, value) in enumerate(about.items()):
                            change.table.insert(place, name, value)
                        tables.append(change.table)
                        if self.maps:
                            self._write_maps(case, group, change)
                except ScanError as error:
                    metrics.skipped[case.scan_id] = str(error)
        if not tables:
            raise ScanError(f"regions: no case could be measured ({metrics.skipped})")
        return pd.concat(tables, ignore_index=True)

    def _changes(self, case: Case, own_regions: OwnRegions, size: float) -> dict[str, Change]:
        """Return the change of each group. NumPy and SciPy work on several CPUs by threads."""
        meter, before = self.meter, case.before
        regions = own_regions.begin(before)

        def growth(groups: list[str]) -> dict[str, NDArray[np.float32]]:
            course = [(case.numbers.get(group, 1.0), case.after[group]) for group in groups]
            return dict(zip(groups, meter.growth(before, course), strict=True))

        def change(group: str) -> Change:
            return meter.change(
                before,
                case.after[group],
                known=known,
                growth=grown[group],
                head_per_template=size,
            )

        with ThreadPoolExecutor(available_cpus()) as pool:
            grown = {
                group: of_group
                for of_course in pool.map(growth, case.courses())
                for group, of_group in of_course.items()
            }
            known = meter.known_of(before, regions())
            return dict(zip(case.after, pool.map(change, case.after), strict=True))

    def finish(
        self, changes: pd.DataFrame, groups: Mapping[str, pd.DataFrame], metrics: RegionMetrics
    ) -> RegionMetrics:
        """Sum groups up; write metrics.json, changes.csv, regions.csv, regions.tex and pictures."""
        for name, rows in groups.items():
            metrics.groups[name] = summarise(rows)
        write_atomic(self.out / "changes.csv", changes.to_csv(index=False))
        write_atomic(self.out / "regions.csv", table_of(metrics.groups).to_csv(index=False))
        # As comments: a table that is copied into a paper takes its doubts along.
        said = "".join(f"% {line}\n" for line in metrics.remarks)
        write_atomic(self.out / "regions.tex", said + latex_of(metrics.groups))
        self._write_pictures(dict(list(metrics.groups.items())[:PICTURED]))
        write_json(self.out / "metrics.json", metrics.model_dump())
        return metrics

    def _write_pictures(self, groups: Mapping[str, Mapping[str, RegionEffect]]) -> None:
        values = {
            name: {
                region: effect.volume_percent.value
                for region, effect in effects.items()
                if effect.kind == "atlas" and effect.volume_percent is not None
            }
            for name, effects in groups.items()
        }
        for name, kind, figure in region_figures(self.meter.parcellation, values):
            save_figure(figure, self.out / f"{_file_name(name)}_{kind}.png")

    def _write_maps(self, case: Case, group: str, change: Change) -> None:
        for kind, values in (
            ("volume", change.volume_percent),
            ("intensity", change.intensity_percent),
        ):
            name = f"{case.scan_id}_{_file_name(group)}_space-{self.space}_{kind}-percent.nii.gz"
            data, affine = np.asarray(values, np.float32), self.meter.affine
            if self.space == "native":
                assert case.native is not None
                grid = case.native.to_mni @ case.native.affine
                data = sample(data, affine, grid, case.native.shape)
                affine = case.native.affine
            _write_map(self.out / "maps" / name, data, affine, XFORM_CODES[self.space])


def _write_map(
    path: Path, data: NDArray[np.float32], affine: NDArray[np.float64], code: int
) -> None:
    image = nib.Nifti1Image(data, None)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"ldae-pipeline regions: change in percent"
    write_atomic(path, igzip.compress(image.to_bytes(), 3, mtime=0))


def _file_name(group: str) -> str:
    return group.replace(" ", "_").replace("/", "-")
