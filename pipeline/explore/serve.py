"""Serve the page on a port of this computer until it is stopped."""

import logging
import secrets
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from pipeline.explore.engine import Engine
from pipeline.explore.server import ExploreServer
from schemas.errors import ContractError

log = logging.getLogger(__name__)

LOCAL = "127.0.0.1"
LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names by which a browser may know a server that only this computer can ask."""
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
LAST_WORDS_S = 3
"""How long Ctrl-C waits for answers that are on their way."""
PORT = 8765
PORTS_TRIED = 20


def listen(host: str, port: int) -> socket.socket:
    """Return a socket on the port, or on the next that is free.

    Raises
    ------
    ContractError
        If none of PORTS_TRIED is free, or the host is not of this computer.
    """
    reason = ""
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise ContractError(f"--host {host}: no address ({error.strerror or error})") from error
    for number in range(port, min(port + PORTS_TRIED, 65_536)):
        listening = socket.socket(family, socket.SOCK_STREAM)
        # A port that a stopped server left waits a minute, unless it may be taken again.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
            listening.listen(128)
        except OSError as error:
            listening.close()
            reason = error.strerror or str(error)
            continue
        if number != port:
            log.warning("port %d is taken, so the page is on %d", port, number)
        return listening
    raise ContractError(
        f"--port {port}: neither it nor the {PORTS_TRIED - 1} after it can be used on {host}"
        f" ({reason}); give another --port or --host"
    )


def serve(engine: Engine, *, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C; `announce` gets its address, token and all."""
    token = secrets.token_urlsafe(16)
    listening = listen(host, port)
    hosts = LOCAL_NAMES if host in LOCAL_HOSTS else None
    app = ExploreServer(engine).app(token=token, hosts=hosts)
    engine.start()
    announce(f"http://{shown_host(host)}:{listening.getsockname()[1]}/?token={token}")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=LAST_WORDS_S,
    )
    with listening:
        StoppingServer(config, engine).run(sockets=[listening])


def shown_host(host: str) -> str:
    """Return the host as it stands in an address."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


class StoppingServer(uvicorn.Server):
    """A server whose engine gives up its work when it is told to stop."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self.engine = engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, and the engine too."""
        self.engine.stop()
        super().handle_exit(sig, frame)
