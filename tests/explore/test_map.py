"""The map in a browser: lasso, search, hover; numbers far out; no picture under a wrong name."""

import math
from dataclasses import replace

import pytest

from pipeline.explore.directions import StudyDirections
from tests.support.browser import NO_WEBGL, Browser
from tests.support.explore_page import choose, served, text_of, wait_for_brain
from tests.support.volumes import OTHER, SCAN

PLACE = "explorePage.scatter.screen[explorePage.study.scans.indexOf('{}')]"


@pytest.fixture(scope="module")
def page(engine, tmp_path_factory):
    """The page at a scan's own place; tests leave it at a scan of theirs."""
    profile = tmp_path_factory.mktemp("map") / "profile"
    with served(engine) as (address, _), Browser(profile, NO_WEBGL) as browser:
        browser.size(1280, 800)
        browser.open(f"{address}/?token=t#scan={SCAN}")
        wait_for_brain(browser, SCAN)
        yield browser
        assert browser.errors == []


def on_window(browser, script):
    """Return a point of the map as a point of the window."""
    left, top = browser.run(
        "(({ left, top }) => [left, top])(points.getBoundingClientRect())"  # by its id
    )
    x, y = browser.run(script)
    return left + x, top + y


@pytest.mark.slow
def test_a_lasso_counts_whom_it_holds(page):
    x, y = on_window(page, PLACE.format(OTHER))
    close = [(x + 9 * math.cos(a / 4), y + 9 * math.sin(a / 4)) for a in range(26)]
    page.drag(close)
    inside = page.run(
        "(([x, y]) => explorePage.scatter.screen.filter((p) => Math.hypot(p[0] - x, p[1] - y) < 8)"
        f".length)({PLACE.format(OTHER)})"
    )
    words = text_of(page, "group")
    assert words.startswith(f"{inside} scan")
    assert inside < 20
    width, height = page.run("[points.clientWidth, points.clientHeight]")
    left, top = on_window(page, "[0, 0]")
    right, low = width - 2, height - 2
    edge = [(2, 2), (right, 2), (right, low), (2, low), (2, height / 2), (2, 4)]
    page.drag([(left + x, top + y) for x, y in edge])
    assert text_of(page, "group").startswith("20 scans of 18 people")
    assert page.run("explorePage.state.scan") == SCAN, "a lasso chooses nobody"
    page.drag([(left + 2, top + 2)])
    assert text_of(page, "group") == "No points chosen."


@pytest.mark.slow
def test_a_click_chooses_and_with_shift_the_second(page):
    page.drag([on_window(page, PLACE.format(OTHER))])
    assert page.run("explorePage.state.scan") == OTHER
    wait_for_brain(page, OTHER)


@pytest.mark.slow
def test_a_scan_is_found_by_a_part_of_its_name(page):
    choose(page, SCAN.upper())
    assert page.run("explorePage.state.scan") == SCAN
    choose(page, "sub-0")
    assert "20 scans have that in their name" in text_of(page, "status")
    choose(page, "<b>nobody</b>")
    assert "<b>nobody</b> is not among the scans here" in text_of(page, "status")
    choose(page, OTHER[-2:])
    assert page.run("explorePage.state.scan") == OTHER


@pytest.mark.slow
def test_a_brain_that_cannot_be_had_is_not_shown_as_another_ones(page):
    choose(page, SCAN)
    wait_for_brain(page, SCAN)
    page.run(
        "(() => { const { source } = explorePage; for (const name of ['volume', 'brain'])"
        " source[name] = () => Promise.reject(new Error('no such brain')); explorePage.maker.kept"
        ".clear(); })()"
    )
    # Nobody asked for this person's brain before, so that none can be on its way.
    new = page.run(f"explorePage.study.scans.find((s) => !['{SCAN}', '{OTHER}'].includes(s))")
    choose(page, new)
    page.wait("document.getElementById('notes').textContent.includes('no such brain')")
    assert page.run("getComputedStyle(document.querySelector('#after canvas')).opacity") == "0"
    assert page.run("document.querySelector('#after figcaption').textContent") == ""
    page.run("['volume', 'brain'].forEach((name) => delete explorePage.source[name])")
    choose(page, SCAN)
    wait_for_brain(page, SCAN)
    page.wait("Boolean(document.querySelector('#panes.drawn'))")
    assert page.run("document.getElementById('notes').textContent").count("no such brain") == 0


@pytest.mark.slow
def test_places_far_out_do_not_fill_the_axis_with_numbers(page):
    count = """
    import("/page/charts.js").then(({ drawHistogram }) => {
      const of = (positions) => {
        drawHistogram({ name: "a", unit: "SD", positions }, 0, positions[0]);
        return document.querySelectorAll("#histogram text").length;
      };
      return [of([0, 1e9, -1e7]), of([null, null]), of([0, 1, -1]), of([-9.5, 9])];
    })
    """
    counts = page.run(count)
    assert max(counts) <= 12
    assert min(counts) >= 3
    assert "NaN" not in page.run("document.getElementById('histogram').ariaLabel")


@pytest.mark.slow
def test_a_link_that_is_changed_by_hand_shows_what_it_says(page):
    page.run(f"void (location.hash = '#scan={OTHER}&scale=99&layout=tsne&threshold=x')")
    page.wait(f"explorePage.state.scan === '{OTHER}'")
    assert page.run("explorePage.state.scale") == 4
    assert page.run("document.getElementById('slider').value") == "4"
    page.wait("document.getElementById('axes').textContent.includes('t-SNE')")
    page.run("void (location.hash = '')")
    page.wait("explorePage.state.scale === 0")
    assert page.run("explorePage.state.scan === explorePage.study.scans[0]")
    assert page.run("document.getElementById('layout').value") == "pca"


@pytest.mark.slow
def test_without_y_sem_a_sentence_stands_in_place_of_the_map(open_engine, study_folder, tmp_path):
    bare = open_engine(study_folder)
    bare.study = replace(bare.study, y_sem=None)
    bare.directions = StudyDirections(file=None, by_name={}, documents=[])
    with served(bare) as (address, _), Browser(tmp_path / "profile", NO_WEBGL) as browser:
        browser.open(f"{address}/?token=t")
        browser.wait("document.documentElement.dataset.first")
        assert text_of(browser, "group") == "No map without y_sem. Find a scan or a person by name."
        names = "['cloud', 'legend', 'axes', 'layout-label', 'colour-label']"
        assert browser.run(f"{names}.every((name) => document.getElementById(name).hidden)")
        choose(browser, OTHER)
        browser.wait(f"document.querySelector('#after figcaption').textContent.includes('{OTHER}')")
        assert "No direction to move along" in text_of(browser, "controls")
        assert browser.errors == []
