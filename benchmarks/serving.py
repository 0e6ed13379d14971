"""The server under test: one that already runs, or one that is started for the benchmark, ours or a peer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from benchmarks.load.generator import Target
from benchmarks.load.process import ROOT
from benchmarks.peers import PEERS
from detector import Manifest, UsageError
from detector.cpus import available_cpus
from serve import control, process
from serve.errors import StartupFailed
from serve.settings import LOOPBACK, MODEL, Settings

STOP_SECONDS = 45  # the server's own drain limit and a margin
PEER_START_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A server. metrics: URL of its metrics page, None for a peer. about: facts for the report, such as archive and workers.
    pid: of its first process, when the benchmark has started it."""

    target: Target
    metrics: str | None
    about: dict[str, Any] = field(default_factory=dict)
    pid: int | None = None

    def cpu_seconds(self) -> float | None:
        """CPU time of all its processes so far, in seconds; None for a server that already ran."""
        if self.pid is None:
            return None
        seconds = 0.0
        for each in self.processes():
            with suppress(psutil.NoSuchProcess):  # the process has just ended
                times = each.cpu_times()
                seconds += times.user + times.system
        return seconds

    def processes(self) -> list[psutil.Process]:
        """Its processes, when the benchmark has started it: the first one and its descendants."""
        top = psutil.Process(self.pid)
        return [top, *top.children(recursive=True)]


def running_server(url: str, grpc: str | None, metrics: str | None) -> Server:
    """A server at the REST address `url`; gRPC and metrics are looked for on the same host at their usual ports.

    Raises `UsageError` when `url` is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--target {url!r} is not a URL such as http://127.0.0.1:8080")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    ports = Settings.model_fields
    return Server(
        Target(f"{parts.scheme}://{parts.netloc}", grpc or f"{host}:{ports['grpc_port'].default}"),
        metrics or f"http://{host}:{ports['supervisor_port'].default}/metrics",
        {"server": url},
    )


@contextmanager
def own_server(artifacts: Path, archive: str, workers: int | None, device: str) -> Iterator[Server]:
    """Start a server on free ports, and drain it at the end. Raises `StartupFailed` with the reason when it fails to start."""
    with TemporaryDirectory(prefix="unmask-benchmark-") as scratch:
        state, log = Path(scratch) / "state", Path(scratch) / "serve.log"
        command = [sys.executable, "-m", "unmask", "serve", "start", "--free-ports", "--state", str(state)]
        command += ["--artifacts", str(artifacts.resolve()), "--archive", archive, "--device", device]
        command += ["--workers", str(workers)] if workers else []
        print("starting the server", file=sys.stderr)
        with log.open("wb") as output:
            # In a session of its own, Ctrl-C in the terminal does not reach the server; it is drained at the end.
            child = process.start(command, dict(os.environ), Path.cwd(), output)
            try:
                yield _ready(child, state, log, Manifest.load(artifacts / "manifest.json"))
            finally:
                child.terminate()
                try:
                    child.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


def _ready(child: subprocess.Popen[bytes], state: Path, log: Path, manifest: Manifest) -> Server:
    while not (status := control.status(state))["ready"]:
        if child.poll() is not None:
            reason = log.read_text(encoding="utf-8", errors="replace").strip().removeprefix("error: ")
            raise StartupFailed(reason or f"the server ended with exit code {child.returncode}")
        time.sleep(0.2)
    rest = urlsplit(status["rest"])
    model, spec = manifest.model, manifest.image_spec
    about = {"model": f"{model.name} {model.version}, {model.backbone} at {spec.size} px"}
    about |= {"archive": status["archive"], "workers": status["workers"]["ready"], "device": status["device"]}
    return Server(
        Target(f"{rest.scheme}://{rest.netloc}", status["grpc"]), status["supervisor"] + "/metrics", about, child.pid
    )


def why_unavailable(peer: str) -> str | None:
    """The reason why a peer can't run here, None when it can."""
    missing = [package for package in PEERS[peer] if find_spec(package) is None]
    return f"not installed: {', '.join(missing)} (the extra peers has what it needs)" if missing else None


@contextmanager
def peer_server(peer: str, artifacts: Path, photo: bytes) -> Iterator[Server]:
    """One of `PEERS` with the ONNX model of `artifacts` on a free port, ready when it has answered `photo`.

    Raises `StartupFailed` with the end of its log when it does not.
    """
    module = f"benchmarks.peers.{peer}_app"
    workers = available_cpus()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "MODEL": str((artifacts / "model.onnx").resolve())}
    with TemporaryDirectory(prefix="unmask-peer-") as scratch, _held_port() as port:
        command = {
            "fastapi": ["uvicorn", f"{module}:app", "--port", str(port), "--workers", str(workers), "--log-level", "warning"],
            "litserve": [module, "--port", str(port)],
        }[peer]
        log = Path(scratch) / "peer.log"
        print(f"starting {peer}", file=sys.stderr)
        with log.open("wb") as output:
            child = process.start([sys.executable, "-m", *command], environment, Path(scratch), output)
            try:
                _await_answer(child, f"http://{LOOPBACK}:{port}/predictions/{MODEL}", photo, log)
                yield Server(Target(f"http://{LOOPBACK}:{port}", ""), None, {"workers": workers}, child.pid)
            finally:
                process.stop(child, STOP_SECONDS)


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
    deadline = time.monotonic() + PEER_START_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            headers = {"Content-Type": "application/octet-stream"}
            if httpx.post(url, content=photo, headers=headers, trust_env=False).status_code == 200:
                return
        time.sleep(0.2)
    end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])
    raise StartupFailed(f"{url} has not answered a photo:\n{end}")
