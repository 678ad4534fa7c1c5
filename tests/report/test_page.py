"""The page: whole without outside help, safe with hostile names, the same every time."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.report_study import (
    HOSTILE,
    PARAMS,
    SECTIONS,
    Page,
    all_parts,
    render,
)


@pytest.mark.slow
def test_nothing_is_loaded_from_outside(study: tuple[Path, str]) -> None:
    page = Page(study[1])
    assert page.loads
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    style = study[1].split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import", style)
    assert "default-src 'none'" in study[1]


@pytest.mark.slow
def test_every_section_is_there_once(study: tuple[Path, str]) -> None:
    page = Page(study[1])
    assert sorted(page.ids) == sorted(SECTIONS)
    assert {load.removeprefix("#") for load in page.loads if load.startswith("#")} == set(SECTIONS)
    assert "Not run" not in study[1]


@pytest.mark.slow
def test_hostile_names_stay_text(study: tuple[Path, str]) -> None:
    page = Page(study[1])
    assert page.tags.count("script") == 1
    assert "<script>alert" not in study[1]
    assert HOSTILE in "".join(page.text)


@pytest.mark.slow
def test_figures_are_kept_as_files(study: tuple[Path, str]) -> None:
    names = {path.name for path in (study[0] / "figures").iterdir()}
    assert names == {
        "calibration_cv.svg",
        "calibration_test.svg",
        "cohort_ages.svg",
        "dose_response.svg",
        "forecast_1.png",
        "generation.png",
        "inversion.svg",
        "manipulation_1.png",
        "manipulation_2.png",
        "middle_visit_1.png",
        "middle_visits.svg",
        "probes_cv.svg",
        "probes_test.svg",
        "qc_mosaic.png",
        "reconstruction_1.png",
        "reconstruction_2.png",
        "steps.svg",
        "training_curves.svg",
    }


@pytest.mark.slow
def test_same_study_same_page(study: tuple[Path, str]) -> None:
    root, text = study
    assert render(root, PARAMS, **all_parts(root)) == text
    assert len(text) < 4_000_000


PROBE_SCRIPT = """
<script>
const viewer = document.querySelector(".viewer"), slider = viewer.querySelector("input");
const frame = viewer.querySelector(".frame"), seen = [];
const look = () => seen.push(frame.style.backgroundImage + frame.style.backgroundPositionY);
look();
slider.value = 3; slider.dispatchEvent(new Event("input")); look();
viewer.querySelector("[data-plane=sagittal]").click(); look();
const broken = [...document.images].filter((image) => image.complete && !image.naturalWidth);
document.title = JSON.stringify({ seen, broken: broken.length, images: document.images.length });
</script>
"""


@pytest.mark.slow
def test_page_works_in_a_real_browser(study: tuple[Path, str], tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    page = tmp_path / "page.html"
    page.write_text(study[1].replace("</body>", PROBE_SCRIPT + "</body>"), encoding="utf-8")
    command = [
        browser,
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update"),
        *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--window-size=1400,2000", "--virtual-time-budget=5000", "--dump-dom"),
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    # A blocked request would stand here too: the page's policy turns it into a console error.
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    found = json.loads(html.unescape(title[1]))
    assert found["broken"] == 0
    assert found["images"] >= 8
    start, slid, turned = found["seen"]
    assert start != slid
    assert "axial" in slid
    assert "sagittal" in turned


@pytest.mark.slow
def test_forecasts_and_regions_of_visits_are_told(study: tuple[Path, str]) -> None:
    text = " ".join(study[1].split())
    assert "1 of the visits lie further ahead than that" in text
    assert "last visit carried forward" in text
    assert "Share held by the 90" in text
    assert "mean absolute error of its tissue" in text
    assert "worse than voxel blend" in text
    assert "Likeness outside what moves most" in text
