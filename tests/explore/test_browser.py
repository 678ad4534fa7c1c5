"""The page in a real browser: choose, drag, download; offline; without WebGL2; server gone."""

import base64

import pytest
from typer.testing import CliRunner

from pipeline.explore.export import export_page
from stages.cli import app as command_line
from tests.support.browser import NO_WEBGL, SOFTWARE_WEBGL, Browser
from tests.support.explore_page import QUALITY, choose, served, wait_for_brain
from tests.support.explore_study import HOSTILE, TOWARDS, VISITS
from tests.support.volumes import OTHER, SCAN

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
        words += ["--latents", "data/latents.zarr", "--out", str(made), *engine.options]
        result = CliRunner().invoke(command_line, words)
        assert result.exit_code == 0, result.output
        assert base64.b64decode(browser.run(DIGITS)) == (made / name).read_bytes()

        link = browser.wait("location.hash.includes('scale=1.5') && location.hash")
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
@pytest.mark.parametrize(
    ("flags", "view"), [(NO_WEBGL, "SliceView"), (SOFTWARE_WEBGL, "VolumeView")]
)
def test_the_exported_file_works_without_a_network(engine, tmp_path, flags, view):
    out = tmp_path / "page.html"
    export_page(engine, out, scans=[SCAN], places=15)
    with Browser(tmp_path / "profile", flags) as browser:
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        browser.call("Network.emulateNetworkConditions", **offline)
        browser.size(1280, 800)
        browser.open(out.as_uri() + "#scale=2.9")
        wait_for_brain(browser, SCAN)
        assert browser.wait("explorePage.panes.views.after?.constructor.name") == view
        assert browser.run("explorePage.state.scale") == 3, "the nearest place that is there"
        every = "explorePage.kept.scales.map((scale) => explorePage.source.brain({ scale, scan:"
        every += f" '{SCAN}', direction: explorePage.state.direction }}))"
        assert browser.run(f"Promise.all({every}).then((all) => all.length)") == 15
        browser.run("explorePage.controls.jump(-3)")
        wait_for_brain(browser, '"scale":-3')
        browser.wait("document.querySelectorAll('#bars rect').length > 0")
        browser.run("document.querySelector('[data-mode=vary]').click()")
        assert "needs the models" in browser.run("document.getElementById('controls').textContent")
        assert [u for u in browser.requests if not u.startswith(("file:", "data:", "blob:"))] == []
        assert browser.errors == []


@pytest.mark.slow
@pytest.mark.parametrize("token", ["wrong", "%E6%97%A5", "%0A"])
def test_a_wrong_token_is_a_sentence_on_the_page(engine, tmp_path, token):
    with served(engine) as (address, _), Browser(tmp_path / "profile", NO_WEBGL) as browser:
        browser.open(f"{address}/?token={token}")
        words = browser.wait("document.getElementById('notes').textContent", 60)
        assert "the token is missing or wrong" in words
