"""The page of `pipeline explore` in a browser: served, and asked for."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from pipeline.explore.engine import Engine
from pipeline.explore.serve import LOCAL_NAMES, listen
from pipeline.explore.server import ExploreServer
from tests.support.browser import Browser

QUALITY = "document.getElementById('quality').dataset"


@contextmanager
def served(engine: Engine) -> Iterator[tuple[str, Callable[[], None]]]:
    """Serve the page on a free port; yields its address and a function that stops it."""
    with listen("127.0.0.1", 8900) as listening:
        app = ExploreServer(engine).app(token="t", hosts=LOCAL_NAMES)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(20)

        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", stop
        finally:
            stop()


def choose(browser: Browser, scan: str) -> None:
    """Find a scan by its name, as someone who types it."""
    browser.run(
        f"(() => {{ const find = document.getElementById('find'); find.value = '{scan}';"
        " find.dispatchEvent(new Event('change')); })()"
    )


def wait_for_brain(browser: Browser, words: str, quality: str = "full") -> None:
    """Wait until a brain is shown whose request has these words."""
    browser.wait(f"{QUALITY}.quality === '{quality}' && {QUALITY}.brain.includes('{words}')", 180)


def text_of(browser: Browser, name: str) -> str:
    """Return the words of an element."""
    return str(browser.run(f"document.getElementById('{name}').textContent"))
