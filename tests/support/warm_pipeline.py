"""The program `pipeline` for tests that start it often: forked where everything is imported.

Importing torch, MONAI and Lightning takes longer than most commands on tiny data. A server imports
them once; the program that `warm_programs` lays out hands its arguments, folder, environment and
open files over, and ends as the forked command ends. Without the server it is `pipeline` itself.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from importlib import import_module
from pathlib import Path

import psutil
from filelock import FileLock

from tests.support.paths import ROOT

PROGRAM = Path(sys.executable).with_name("pipeline")
PATIENCE_S = 2.0
"""How often the server looks whether the tests are still there."""
PRELOAD = (
    "matplotlib.pyplot",
    "pipeline.evaluation.evaluate",
    "pipeline.report.render",
    "pipeline.encoding.run",
    "pipeline.training.latent_diffusion",
)
CLIENT = """#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
try:
    server.connect({address!r})
except OSError:
    os.execv({program!r}, [{program!r}, *sys.argv[1:]])
request = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
server.sendall(request)
code = server.recv(1)
sys.exit(code[0] if code else 70)
"""


@cache
def warm_programs() -> Path:
    """Return a folder for PATH whose `pipeline` starts at once.

    All test processes share one server, which ends with the process that started them. It is told
    its threads as `environment` in tests/support/command_line.py tells every child.
    """
    tests = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", "alone")
    folder = Path(tempfile.gettempdir()) / f"warm-{run}-{tests}"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            _start_server(folder, tests)
    return folder


@cache  # keeps it: a process nobody holds any more is warned of
def _start_server(folder: Path, tests: int) -> subprocess.Popen[bytes]:
    address = str(folder / "socket")
    program = folder / "pipeline"
    program.write_text(CLIENT.format(python=sys.executable, address=address, program=str(PROGRAM)))
    program.chmod(0o755)
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.support.warm_pipeline", address, str(tests)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )
    while not Path(address).exists() and server.poll() is None:
        time.sleep(0.05)
    return server


def serve(address: str, tests: int) -> None:
    """Answer until the process `tests` is gone."""
    for module in PRELOAD:
        import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen()
        server.settimeout(PATIENCE_S)
        Path(f"{address}.new").rename(address)
        while psutil.pid_exists(tests):
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                server.close()
                _run(connection)
            connection.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)
    Path(f"{Path(address).parent}.lock").unlink(missing_ok=True)


def _run(connection: socket.socket) -> None:
    """Be the command that was asked for; never returns."""
    code = 70
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        connection.settimeout(None)
        head, files, *_ = socket.recv_fds(connection, 8, 3)
        request = b""
        while len(request) < int.from_bytes(head, "big"):
            request += connection.recv(1 << 16)
        arguments, folder, environment = json.loads(request)
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["pipeline", *arguments]
        from stages.cli import main

        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (nothing may return into the server)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([code]))
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
