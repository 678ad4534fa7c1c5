"""Two runs of a study are compared, and one changed number, text or voxel is told."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import save_file

from benchmarks.studies import same_bytes

PAGE = """<html><style>p { color: red }</style><body>
<section id="training"><table><tr><th>Model</th><th>Steps</th><th>Minutes</th></tr>
<tr><th>ae</th><td>8</td><td>{minutes}</td></tr></table></section>
<section id="probes"><p>ROC-AUC {auc}</p></section>
<section id="versions"><p>torch {version}</p></section></body></html>"""


def write_study(
    folder: Path,
    *,
    scans: tuple[str, ...] = ("a", "b", "c"),
    voxel: int = 0,
    weight: float = 1.0,
    loss: float = 0.5,
    auc: float = 0.9,
    minutes: float = 1.0,
) -> Path:
    """Write a study of three scans; `minutes` stands for what no two runs share."""
    group = zarr.open_group(folder / "data" / "volumes.zarr", mode="w")
    group.attrs["scan_ids"] = list(scans)
    rows = np.stack([np.full((2, 2, 2), ord(scan), np.uint8) for scan in scans])
    rows[scans.index("b"), 0, 0, 0] += voxel
    group.create_array("volume", data=rows, chunks=(1, 2, 2, 2))
    model, report = folder / "models" / "ae", folder / "reports"
    model.mkdir(parents=True)
    report.mkdir()
    save_file({"w": torch.tensor([weight], dtype=torch.bfloat16)}, model / "model.safetensors")
    metrics = {"loss": loss, "seconds": minutes * 60}
    (model / "metrics.json").write_text(json.dumps(metrics))
    page = PAGE.replace("{minutes}", str(minutes)).replace("{version}", str(minutes))
    (report / "report.html").write_text(page.replace("{auc}", str(auc)))
    return folder


def compare(monkeypatch: pytest.MonkeyPatch, *studies: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["same_bytes", *map(str, studies)])
    same_bytes.main()


def test_order_of_scans_and_minutes_make_no_difference(tmp_path, monkeypatch, capsys):
    before = write_study(tmp_path / "before")
    after = write_study(tmp_path / "after", scans=("c", "a", "b"), minutes=2.0)
    compare(monkeypatch, before, after)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 4
    assert all("the same" in line for line in told)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"voxel": 1}, "data/volumes.zarr/volume: 1 of 3 differ, first b: "),
        ({"scans": ("a", "b")}, "data/volumes.zarr/volume: 1 of 3 differ, first c: "),
        ({"weight": 1.01}, "models/ae/model.safetensors: 1 of 1 differ, first w: "),
        ({"loss": 0.51}, "models/ae/metrics.json: 1 of 1 differ, first loss: 0.5 → 0.51"),
        ({"auc": 0.91}, "reports/report.html: 3 of 7 differ, first ROC-AUC 0.9: "),
    ],
)
def test_a_difference_is_told(tmp_path, monkeypatch, capsys, change, expected):
    before, after = write_study(tmp_path / "before"), write_study(tmp_path / "after", **change)
    with pytest.raises(SystemExit) as ended:
        compare(monkeypatch, before, after)
    assert ended.value.code == 1
    differing = [line for line in capsys.readouterr().out.splitlines() if "the same" not in line]
    assert len(differing) == 1
    assert differing[0].startswith(expected)


def test_a_folder_without_a_study_is_refused(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="nothing to compare"):
        compare(monkeypatch, tmp_path, tmp_path)
