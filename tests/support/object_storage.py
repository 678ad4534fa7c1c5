"""Object storage on this machine: moto's S3, and plain web servers with bad days."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "lab"


@contextmanager
def serve_s3() -> Iterator[str]:
    """Yield the address of an S3 server with an empty bucket `lab`."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    try:
        urllib.request.urlopen(urllib.request.Request(f"{address}/{BUCKET}", method="PUT")).close()
        yield address
    finally:
        server.stop()


def s3_settings(address: str) -> dict[str, str]:
    """Return the environment of a process that is to use this server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


class QuietFiles(SimpleHTTPRequestHandler):
    """Files of a folder, which cannot be listed."""

    ranges = True

    def list_directory(self, path):
        self.send_error(404)

    def do_GET(self) -> None:
        wanted, file = self.headers.get("Range"), Path(self.translate_path(self.path))
        if not (self.ranges and wanted and file.is_file()):
            super().do_GET()
            return
        content = file.read_bytes()
        first, last = wanted.removeprefix("bytes=").split("-")
        start = int(first) if first else len(content) - int(last)
        part = content[start : int(last) + 1 if first and last else None]
        self.send_response(206)
        end = start + len(part) - 1
        self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


class BadDay(QuietFiles):
    """Files of a folder; the first answers are of another kind."""

    answers: list[int | float]
    """Status codes; a fraction is a time (s) to wait for."""

    def do_GET(self) -> None:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, float):
            time.sleep(answer)
        elif answer is not None:
            self.send_error(answer)
            return
        super().do_GET()


@contextmanager
def serve_files(
    root: Path, answers: list[int | float] | None = None, *, ranges: bool = True
) -> Iterator[str]:
    """Yield the address of a web server of a folder."""
    kind = type("Day", (BadDay,), {"answers": answers or [], "ranges": ranges})
    with serve(partial(kind, directory=str(root))) as address:
        yield address


@contextmanager
def serve(handler: "partial[BadDay] | type[BaseHTTPRequestHandler]") -> Iterator[str]:
    """Yield the address of a web server on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
