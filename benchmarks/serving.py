"""The server under test: one that already runs, or one that is started for the benchmark."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks.load.generator import Target
from detector import Manifest, UsageError
from serve import control
from serve.errors import StartupFailed
from serve.processes import process
from serve.settings import Settings

STOP_SECONDS = 45  # the server's own drain limit and a margin


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
def own_server(
    artifacts: Path, archive: str, workers: int | None, device: str, options: Sequence[str] = ()
) -> Iterator[Server]:
    """Start a server on free ports, and drain it at the end. options: more of them, as `unmask serve start` takes them.

    Raises `StartupFailed` with the reason when it fails to start.
    """
    with TemporaryDirectory(prefix="unmask-benchmark-") as scratch:
        state, log = Path(scratch) / "state", Path(scratch) / "serve.log"
        command = [sys.executable, "-m", "unmask", "serve", "start", "--free-ports", "--state", str(state)]
        command += ["--artifacts", str(artifacts.resolve()), "--archive", archive, "--device", device]
        command += [*(["--workers", str(workers)] if workers else []), *options]
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
