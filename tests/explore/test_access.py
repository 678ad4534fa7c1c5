"""The page for people who use no mouse, see no colours, or see nothing."""

import importlib.util
from pathlib import Path

import pytest

from tests.support.browser import NO_WEBGL, Browser
from tests.support.explore_page import served, text_of, wait_for_brain
from tests.support.explore_study import VISITS
from tests.support.volumes import SCAN

REACHABLE = """
[...document.querySelectorAll("button, input, select, a[href], canvas, pre, [tabindex]")]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled)
  .filter((e) => e.tabIndex >= 0 && e.getClientRects().length)
  .map((e) => (window.nameOf ||= (x) => x.id || x.dataset.take || x.dataset.mode || x.className
    || x.getAttribute("aria-label") || x.textContent)(e))
"""
FOCUSED = """
(() => { const e = document.activeElement, style = getComputedStyle(e);
const isSeen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
return e === document.body ? null : [window.nameOf(e), isSeen]; })()
"""


def pressed_through(browser):
    """Return the names of all that Tab reaches, each with whether the focus is to be seen."""
    reached = {}
    for _ in range(80):
        browser.press("Tab")
        focused = browser.run(FOCUSED)
        if focused is None or focused[0] in reached:
            break
        reached[focused[0]] = focused[1]
    return reached


@pytest.mark.slow
def test_the_keyboard_alone_reaches_and_works_everything(engine, tmp_path):
    with served(engine) as (address, _), Browser(tmp_path / "profile", NO_WEBGL) as browser:
        browser.size(1280, 800)
        browser.open(f"{address}/?token=t#scan={SCAN}&scale=1&view=swipe")
        wait_for_brain(browser, '"scale":1,')
        expected = set(browser.run(REACHABLE))
        assert {"points", "find", "slider", "slider-field", "play", "mni", "theme"} <= expected
        reached = pressed_through(browser)
        assert expected - set(reached) == set()
        assert [name for name, is_seen in reached.items() if not is_seen] == []

        # The map: to a neighbour, to the first of the list, into a group and out of it.
        browser.run("document.getElementById('points').focus()")
        browser.press("ArrowRight")
        moved = browser.run("explorePage.state.scan")
        assert moved != SCAN
        assert text_of(browser, "heard").startswith(moved)
        browser.press("Home")
        assert browser.run("explorePage.state.scan === explorePage.study.scans[0]")
        browser.press("PageDown")
        assert browser.run("explorePage.state.scan === explorePage.study.scans[1]")
        browser.press(" ")
        assert text_of(browser, "group").startswith("1 scan of 1 person")
        browser.press("Escape")
        assert text_of(browser, "group") == "No points chosen."
        browser.press("End", shift=True)
        assert browser.run("explorePage.state.mode") == "between"

        # The tabs and the crosshair.
        browser.run("document.getElementById('tab-between').focus()")
        browser.press("ArrowRight")
        assert browser.run("[document.activeElement.id, explorePage.state.mode]") == [
            "tab-vary",
            "vary",
        ]
        browser.press("Home")
        browser.wait("Boolean(explorePage.panes.views.after?.voxel)")
        browser.run("document.querySelector('#after canvas').focus()")
        browser.press("PageUp")
        assert browser.run("explorePage.state.voxel[2]") == 20 // 2 + 1
        assert browser.errors == []


@pytest.mark.slow
def test_the_visits_of_a_person_may_come_in_any_order(engine, tmp_path):
    first, _, last = VISITS
    with served(engine) as (address, _), Browser(tmp_path / "profile", NO_WEBGL) as browser:
        browser.open(f"{address}/?token=t#mode=between&scan={last}&other={first}&alpha=0.25")
        browser.wait("Boolean(document.getElementById('slider'))")
        limits = "(({ min, max, value }) => [min, max, value])(document.getElementById('slider'))"
        assert browser.run(limits) == ["0", "12", "9"]
        browser.run(
            "(() => { const field = document.getElementById('slider-field'); field.value = '3,0';"
            " field.dispatchEvent(new Event('change')); })()"
        )
        assert browser.run("explorePage.state.alpha") == 0.75
        browser.run(
            "(() => { const field = document.getElementById('slider-field'); field.value = 'three';"
            " field.dispatchEvent(new Event('change')); })()"
        )
        assert "“three” is no number" in text_of(browser, "status")
        assert browser.run("document.getElementById('slider-field').value") == "3.0"
        assert browser.errors == []


@pytest.mark.slow
def test_an_audit_finds_no_fault(engine, tmp_path):
    """By axe-core, in both colour schemes and every tab; contrast among its rules."""
    found = importlib.util.find_spec("axe_core_python")
    if found is None or found.origin is None:
        pytest.skip("needs axe-core-python (an extra of development)")
    axe = Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")
    with served(engine) as (address, _), Browser(tmp_path / "profile", NO_WEBGL) as browser:
        browser.size(1280, 800)
        browser.open(f"{address}/?token=t#scan={SCAN}&scale=1&other={VISITS[0]}")
        wait_for_brain(browser, '"scale":1,')
        browser.run(axe + "; undefined")
        for scheme in ("light", "dark"):
            browser.run(f"explorePage.theme('{scheme}')")
            for mode in ("move", "between", "vary", "noise"):
                browser.run(f"explorePage.set({{ mode: '{mode}' }}, 'all')")
                faults = browser.run(
                    "axe.run().then((r) => r.violations.map((v) => [v.id,"
                    " v.nodes.map((n) => n.html.slice(0, 200))]))"
                )
                assert faults == [], (scheme, mode)
