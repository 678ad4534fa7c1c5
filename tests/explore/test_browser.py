"""The page in a real browser: choose, drag, download; offline; without WebGL2; server gone."""

import base64
import threading
from contextlib import contextmanager

import pytest
import uvicorn
from typer.testing import CliRunner

from pipeline.explore.export import export_page
from pipeline.explore.serve import LOCAL_NAMES, listen
from pipeline.explore.server import ExploreServer
from stages.cli import app as command_line
from tests.support.browser import NO_WEBGL, Browser
from tests.support.explore_study import HOSTILE, TOWARDS, VISITS
from tests.support.volumes import OTHER, SCAN

QUALITY = "document.getElementById('quality').dataset"
DRAG = """
(() => { const slider = document.getElementById("slider");
for (const value of [0.3, 0.8, 1.2, 1.5]) {
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
} })()
"""
DIGITS = """
new Promise((done) => { const reader = new FileReader();
reader.onload = () => done(reader.result.split(",")[1]);
reader.readAsDataURL(explorePage.takeaway.last.blob); })
"""


@contextmanager
def served(engine):
    """Serve the page on a free port; yields its address and a function that stops it."""
    with listen("127.0.0.1", 8900) as listening:
        app = ExploreServer(engine).app(token="t", hosts=LOCAL_NAMES)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()

        def stop():
            server.should_exit = True
            thread.join(20)

        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", stop
        finally:
            stop()


def choose(browser, scan):
    browser.run(
        f"(() => {{ const find = document.getElementById('find'); find.value = '{scan}';"
        " find.dispatchEvent(new Event('change')); })()"
    )


def wait_for_brain(browser, words, quality="full"):
    browser.wait(f"{QUALITY}.quality === '{quality}' && {QUALITY}.brain.includes('{words}')", 180)


@pytest.mark.slow
def test_choose_drag_download_and_lose_the_server(engine, study_folder, tmp_path, monkeypatch):
    with served(engine) as (address, stop), Browser(tmp_path / "profile") as browser:
        browser.call("Browser.setDownloadBehavior", behavior="deny")
        browser.size(1280, 800)
        browser.open(f"{address}/?token=t")
        browser.wait("document.documentElement.dataset.first", 120)
        choose(browser, SCAN)
        wait_for_brain(browser, SCAN)
        browser.run(
            "window.seen = []; new MutationObserver(() => window.seen.push("
            f"{QUALITY}.quality)).observe(document.getElementById('quality'),"
            " { attributes: true })"
        )
        browser.run(DRAG)
        wait_for_brain(browser, '"scale":1.5')
        assert browser.run("window.seen.includes('preview')")
        assert browser.run("document.getElementById('answer').textContent").startswith("Probe: ")
        browser.wait("document.querySelectorAll('#bars rect').length > 0", 120)
        browser.run("document.getElementById('difference').click()")
        browser.run("explorePage.panes.work")
        assert browser.run("explorePage.panes.views.after.nv.volumes.length") == 2

        browser.run("document.querySelector('[data-take=mni]').click()")
        name = browser.wait("explorePage.takeaway.last?.name", 60)
        monkeypatch.chdir(study_folder)
        made = tmp_path / "made"
        words = ["manipulate", "--direction", TOWARDS, "--scale=1.5", "--scan", SCAN]
        words += ["--latents", "data/latents.zarr", "--out", str(made)]
        result = CliRunner().invoke(command_line, words)
        assert result.exit_code == 0, result.output
        assert base64.b64decode(browser.run(DIGITS)) == (made / name).read_bytes()

        link = browser.run("location.hash")
        assert "scale=1.5" in link
        assert f"scan={SCAN}" in link
        assert browser.run("document.querySelectorAll('script').length") == 2
        assert HOSTILE in browser.run("explorePage.study.labels.flatMap((l) => l.groups).join()")
        ours = (address, "data:", "blob:")
        assert [url for url in browser.requests if not url.startswith(ours)] == []
        assert browser.errors == []

        stop()
        browser.run(f"explorePage.set({{ scan: '{OTHER}' }}, 'all')")
        words = browser.wait("document.getElementById('notes').textContent", 60)
        assert "The server does not answer" in words


@pytest.mark.slow
def test_without_webgl_there_are_slices_and_decimal_commas_are_numbers(engine, tmp_path):
    with served(engine) as (address, _), Browser(tmp_path / "profile", NO_WEBGL) as browser:
        browser.size(820, 1180, dark=True)
        browser.open(f"{address}/?token=t#scan={SCAN}&scale=1")
        wait_for_brain(browser, '"scale":1,')
        assert "no WebGL2" in browser.run("document.getElementById('notes').textContent")
        assert browser.run("explorePage.panes.views.after.constructor.name") == "SliceView"
        assert browser.run("document.documentElement.dataset.theme") == "dark"
        browser.run(
            "(() => { const field = document.getElementById('slider-field'); field.value = '−0,75';"
            " field.dispatchEvent(new Event('change')); })()"
        )
        wait_for_brain(browser, '"scale":-0.75')
        assert browser.run("document.getElementById('slider').getAttribute('aria-valuetext')")
        assert not browser.run("document.documentElement.scrollWidth > innerWidth")
        assert browser.errors == []


@pytest.mark.slow
def test_between_two_visits_the_slider_counts_months(engine, tmp_path):
    first, middle, last = VISITS
    with served(engine) as (address, _), Browser(tmp_path / "profile", NO_WEBGL) as browser:
        browser.size(1280, 800)
        browser.open(f"{address}/?token=t#mode=between&scan={first}&other={last}&alpha=0.5")
        wait_for_brain(browser, '"alpha":0.5')
        assert browser.run("document.getElementById('slider-field').value") == "6.0"
        shown = browser.run("document.getElementById('against').textContent")
        assert "real visit, month 6" in shown
        browser.run(f"explorePage.set({{ against: '{middle}', view: 'side' }}, 'view')")
        title = "document.querySelector('#before figcaption').textContent"
        browser.wait(f"{title} === '{middle}, the scan itself'")
        browser.run("document.getElementById('play').click()")
        browser.wait(f"{QUALITY}.brain.includes('\"alpha\":0.25')")
        browser.run("document.getElementById('play').click()")
        wait_for_brain(browser, "full")
        assert browser.errors == []


@pytest.mark.slow
def test_the_exported_file_works_without_a_network(engine, tmp_path):
    out = tmp_path / "page.html"
    export_page(engine, out, scans=[SCAN], places=3)
    with Browser(tmp_path / "profile", NO_WEBGL) as browser:
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.call("Network.emulateNetworkConditions", **offline)
        browser.size(1280, 800)
        browser.open(out.as_uri())
        wait_for_brain(browser, SCAN)
        browser.run("explorePage.controls.jump(3)")
        wait_for_brain(browser, '"scale":3')
        browser.wait("document.querySelectorAll('#bars rect').length > 0")
        browser.run("document.querySelector('[data-mode=vary]').click()")
        assert "needs the models" in browser.run("document.getElementById('controls').textContent")
        assert [u for u in browser.requests if not u.startswith(("file:", "data:", "blob:"))] == []
        assert browser.errors == []


@pytest.mark.slow
def test_a_wrong_token_is_a_sentence_on_the_page(engine, tmp_path):
    with served(engine) as (address, _), Browser(tmp_path / "profile", NO_WEBGL) as browser:
        browser.open(f"{address}/?token=wrong")
        words = browser.wait("document.getElementById('notes').textContent", 60)
        assert "the token is missing or wrong" in words
