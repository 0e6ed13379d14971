"""Start a peer in its own environment, and end all of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil

from benchmarks.load.generator import Target
from benchmarks.load.process import ROOT
from benchmarks.peers import PEERS
from benchmarks.serving import Server
from detector.cpus import available_cpus
from serve.errors import StartupFailed
from serve.processes import process
from serve.settings import LOOPBACK, MODEL, Settings

ENVIRONMENTS = ROOT / ".venv-peers"
INSTALLED = "installed"  # `make peers` writes it when all packages of an environment are there
START_SECONDS = 120  # Ray Serve takes half a minute on a busy machine
STOP_SECONDS = 20


def why_unavailable(peer: str) -> str | None:
    """The reason why a peer can't run here, None when it can."""
    folder = ENVIRONMENTS / peer
    if (folder / INSTALLED).is_file():
        return None
    if folder.is_dir():
        return f"requirements/peers-{peer}.lock can't be installed here; `make peers` says why"
    return "not installed: `make peers` creates an environment for each peer"


def version(peer: str) -> str:
    """The version of a peer's package in its environment."""
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    command = [str(ENVIRONMENTS / peer / "bin" / "python"), "-I", "-c", code, PEERS[peer].package]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def peer_server(peer: str, artifacts: Path, photo: bytes) -> Iterator[Server]:
    """One of `PEERS` with the ONNX model of `artifacts` on a free port, ready when it has answered `photo`.

    Raises `StartupFailed` with the end of its log when it does not.
    """
    programs = ENVIRONMENTS / peer / "bin"
    workers = available_cpus()
    with TemporaryDirectory(prefix="unmask-peer-") as scratch, _held_port() as port:
        values = {"port": port, "workers": workers, "folder": scratch}
        program, *arguments = (part.format(**values) for part in PEERS[peer].command)
        # Console scripts hold the path of their environment in the first line; run by its Python they need not.
        command = [str(programs / "python"), *([] if program == "python" else [str(programs / program)]), *arguments]
        log = Path(scratch) / "peer.log"
        print(f"starting {PEERS[peer].title}", file=sys.stderr)
        with log.open("wb") as output:
            child = process.start(command, _environment(programs, artifacts, Path(scratch)), Path(scratch), output)
            started: list[psutil.Process] = []
            try:
                _await_answer(child, f"http://{LOOPBACK}:{port}/predictions/{MODEL}", photo, log)
                yield Server(Target(f"http://{LOOPBACK}:{port}", ""), None, {"workers": workers}, child.pid)
            finally:
                with suppress(psutil.NoSuchProcess):
                    started = psutil.Process(child.pid).children(recursive=True)
                process.stop(child, STOP_SECONDS)
                _end(started)


def _environment(programs: Path, artifacts: Path, scratch: Path) -> dict[str, str]:
    """Variables of a peer: the checkout to import `detector` from, the model, and a home folder that goes away with it."""
    path = os.pathsep.join([str(programs), os.environ.get("PATH", os.defpath)])
    model, batch = str((artifacts / "model.onnx").resolve()), str(Settings.model_fields["batch_size"].default)
    ours = {"PYTHONPATH": str(ROOT), "PATH": path, "HOME": str(scratch), "TMPDIR": str(scratch)}
    return {**os.environ, **ours, "MODEL": model, "BATCH_SIZE": batch, "BENTOML_DO_NOT_TRACK": "1"}


@contextmanager
def _held_port() -> Iterator[int]:
    """A port of loopback that no other process is given before the peer binds to it.

    This process stays bound to it and does not listen; with SO_REUSEADDR on both sides the peer can bind to it too.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((LOOPBACK, 0))
        yield held.getsockname()[1]


def _await_answer(child: subprocess.Popen[bytes], url: str, photo: bytes, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            headers = {"Content-Type": "application/octet-stream"}
            if httpx.post(url, content=photo, headers=headers, trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
    raise StartupFailed(f"{url} has not answered a photo:\n{end}")


def _end(processes: list[psutil.Process]) -> None:
    """End what has left the peer's process group, as Ray's processes do."""
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(processes, timeout=5)
