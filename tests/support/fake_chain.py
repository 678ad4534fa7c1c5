"""A stand-in for the preprocessing of one scan: what the file holds decides the outcome."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from pipeline.imaging.preprocess_scan import PreprocessedScan
from schemas.errors import ScanError
from schemas.grid import GridParams
from schemas.params import PreprocessParams
from tests.support.volumes import smooth_volume

SHAPE = (7, 8, 9)


PARAMS = PreprocessParams(grid=GridParams(shape=SHAPE, zooms=25.0))


class Chain:
    """Stands in for preprocess_scan: the file's content decides the outcome."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.devices: set[str] = set()
        self.stop_after: int | None = None

    def __call__(
        self, path: Path, params: PreprocessParams, *, device: str = "cpu"
    ) -> PreprocessedScan:
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise KeyboardInterrupt
        self.calls.append(path.name)
        self.devices.add(device)
        content = path.read_text()
        if content.startswith("broken"):
            raise ScanError("truncated gzip: the file ends early; copy it again")
        if content.startswith("crash"):
            raise ZeroDivisionError("a bug\nwith a second line")
        if content.startswith("memory"):
            raise MemoryError
        rng = np.random.default_rng(len(content))
        ncc = 0.1 if content.startswith("wrong") else 0.3 if content.startswith("odd") else 0.7
        return PreprocessedScan(
            bias=None,
            volume=rng.integers(0, 255, SHAPE, np.uint8),
            native_to_mni=np.eye(4),
            native_affine=np.eye(4) * 2,
            native_shape=(9, 8, 7),
            intensity_range=(0.0, 1.0),
            qc={
                "status": "ignored",
                "reasons": "",
                "brain_ml": 1400.0,
                "ncc": ncc,
                "dice": 0.94,
                "scaling": 1.3,
                "coverage": 1.0,
                "snr": 20.0,
                "foreground": 0.2,
                "strip_method": "deepbet",
                "wide_search": "false",
            },
            notes=(),
            timings={"read": 0.1},
        )


def preprocessed(status="pass"):
    return SimpleNamespace(
        volume=smooth_volume(16),
        native_to_mni=np.eye(4),
        native_affine=np.diag([3.0, 3, 3, 1]),
        native_shape=(17, 25, 21),
        intensity_range=(5.0, 250.0),
        tissue_levels=None,
        bias=None,
        qc={"status": status, "reasons": "brain of 9 ml, expected 600 to 2600", "ncc": 0.5},
    )
