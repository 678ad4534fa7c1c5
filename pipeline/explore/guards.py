"""Who may ask the page's server, and what a browser may do with its answers."""

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN_HEADER = "x-explore-token"
MOST_BODY = 64_000
"""Bytes of a request; the page's are a few hundred."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; font-src 'self' data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Guards:
    """Answers to a known host name and, below /api, to the token alone; adds the headers."""

    def __init__(self, app: App, *, token: str, hosts: frozenset[str] | None) -> None:
        """`hosts` are the names that a browser may know this server by; None: any."""
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", []), *added]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self.app(scope, receive, with_headers)
            return
        status, reason = refusal
        body = json.dumps({"error": reason}).encode()
        head = [(b"content-type", b"application/json")]
        await with_headers({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        host = headers.get("host", b"").decode("latin-1").rsplit("@", 1)[-1]
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self.hosts is not None and name.lower() not in self.hosts:
            return 400, "this server does not go by that name; open the address that it printed"
        if not scope["path"].startswith("/api"):
            return None
        given = headers.get(TOKEN_HEADER, b"").decode("latin-1")
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return 403, "the token is missing or wrong; open the address that the terminal shows"
        length = headers.get("content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BODY:
            return 413, f"a request of more than {MOST_BODY} bytes"
        return None
