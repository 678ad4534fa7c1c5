"""Two brains beside one another in software WebGL: drawn, one crosshair, difference, swipe."""

import pytest

from tests.support.browser import SOFTWARE_WEBGL, Browser
from tests.support.explore_page import served, text_of, wait_for_brain
from tests.support.explore_study import TOWARDS
from tests.support.volumes import SCAN

SHOWN = """
explorePage.panes.png().then((blob) => createImageBitmap(blob)).then((picture) => {
  const canvas = new OffscreenCanvas(picture.width, picture.height), ctx = canvas.getContext("2d");
  ctx.drawImage(picture, 0, 0);
  const half = picture.width / 2, counts = [];
  for (const left of [0, half]) {
    const { data } = ctx.getImageData(left, 30, half, picture.height - 60);
    let grey = 0, coloured = 0;
    for (let i = 0; i < data.length; i += 4) {
      grey += data[i] > 40 && Math.abs(data[i] - data[i + 2]) < 3;
      coloured += Math.abs(data[i] - data[i + 2]) > 70;
    }
    counts.push(grey, coloured);
  }
  return counts;
})
"""
"""Grey and coloured pixels of the left half and of the right one, in the picture that is given."""
VIEWS = "Object.values(explorePage.panes.views).map((view) => view.constructor.name)"


@pytest.fixture(scope="module")
def page(engine, tmp_path_factory):
    """The page at a small window, since software draws every pixel of the rendering by hand."""
    profile = tmp_path_factory.mktemp("two") / "profile"
    with served(engine) as (address, _), Browser(profile, SOFTWARE_WEBGL) as browser:
        browser.size(700, 560)
        browser.open(f"{address}/?token=t#scan={SCAN}&direction={TOWARDS}&scale=3&view=side")
        wait_for_brain(browser, '"scale":3,')
        browser.run("explorePage.panes.work")
        yield browser
        assert browser.errors == []


@pytest.mark.slow
def test_both_are_drawn_with_one_crosshair(page):
    assert page.run(VIEWS) == ["VolumeView", "VolumeView"]
    left, _, right, _ = page.run(SHOWN)
    assert min(left, right) > 500
    page.run("document.querySelector('#before canvas').focus()")
    before = page.run("explorePage.panes.views.before.voxel")
    page.press("PageUp")
    voxel = page.run("explorePage.panes.views.after.voxel")
    assert voxel == [before[0], before[1], before[2] + 1]
    assert page.run("explorePage.panes.views.before.voxel") == voxel
    place = "[...explorePage.panes.views[name].nv.scene.crosshairPos]"
    places = page.run(f"['before', 'after'].map((name) => {place})")
    assert places[0] == places[1]


@pytest.mark.slow
def test_the_difference_lies_on_the_moved_brain_from_a_threshold_on(page):
    def coloured(threshold):
        page.run(
            "(() => { const slider = document.getElementById('threshold'); slider.value ="
            f" {threshold}; slider.dispatchEvent(new Event('input')); }})()"
        )
        page.run("explorePage.panes.work")
        return page.run(SHOWN)[1::2]

    page.run("document.getElementById('difference').click()")
    (left, many), (_, few) = coloured(1), coloured(40)
    assert many > max(few, left)
    page.run("document.getElementById('difference').click()")
    page.run("explorePage.panes.work")
    assert page.run("explorePage.panes.views.after.nv.volumes.length") == 1


@pytest.mark.slow
def test_a_swipe_shows_both_in_one_place(page):
    page.run("explorePage.set({ view: 'swipe' }, 'view')")
    page.run(
        "(() => { const swipe = document.getElementById('swipe'); swipe.value = 25;"
        " swipe.dispatchEvent(new Event('input')); })()"
    )
    page.run("explorePage.panes.work")
    box = "(({{ x, y, width, height }}) => [x, y, width, height])({}.getBoundingClientRect())"
    canvases = [f"document.querySelector('#{name} canvas')" for name in ("before", "after")]
    assert page.run(box.format(canvases[0])) == page.run(box.format(canvases[1]))
    assert "25%" in page.run("getComputedStyle(document.getElementById('after')).clipPath")
    page.run("explorePage.set({ view: 'side' }, 'view')")


@pytest.mark.slow
def test_a_brain_of_nobody_has_none_beside_it(page):
    page.run("explorePage.set({ mode: 'noise' }, 'all')")
    wait_for_brain(page, '"noise"')
    assert page.run("getComputedStyle(document.getElementById('before')).display") == "none"
    assert page.run(
        "['view', 'difference'].every((name) => document.getElementById(name).disabled)"
    )
    page.run("explorePage.set({ mode: 'move' }, 'all')")
    wait_for_brain(page, '"move"')
    assert page.run("getComputedStyle(document.getElementById('before')).display") != "none"


@pytest.mark.slow
def test_graphics_that_give_up_leave_slices_and_a_sentence(page):
    """The last of this file: the page draws no WebGL after it."""
    page.run("explorePage.panes.views.after.nv.gl.getExtension('WEBGL_lose_context').loseContext()")
    page.wait("explorePage.panes.flat")
    page.run("explorePage.panes.work")
    assert page.run(VIEWS) == ["SliceView", "SliceView"]
    assert "graphics of this browser gave up" in text_of(page, "notes")
    left, _, right, _ = page.run(SHOWN)
    assert min(left, right) > 500
