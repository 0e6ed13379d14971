"""A real server in a process of its own, for tests to send photos to, to signal and to kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import psutil

from serve.client.client import GrpcClient, RestClient
from serve.record import Record, find_record
from tests.waiting import PATIENCE, awaited
from unmask.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "unmask"]


def unmask(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `unmask …` in this process, and return what a process would have."""
    assert arguments[:2] != ("serve", "start"), "a server has a process of its own"
    argv, out, err = [str(argument) for argument in arguments], StringIO(), StringIO()
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def unmask_process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `unmask …` in a process of its own to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


serve, serve_process = partial(unmask, "serve"), partial(unmask_process, "serve")


@contextlib.contextmanager
def asking(ask: Callable[[int], None], clients: int) -> Iterator[None]:
    """So many clients that call `ask` with their number again and again until the block is left. Raises what one raised."""
    over = threading.Event()

    def client(number: int) -> None:
        while not over.is_set():
            ask(number)

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        try:
            yield
        finally:
            over.set()
    for each in running:
        each.result()


class RunningServer:
    """`unmask serve start` on free ports."""

    def __init__(self, artifacts: Path, state: Path, *flags: str) -> None:
        self.state = state
        state.mkdir(parents=True, exist_ok=True)
        self._log = (state / "output.log").open("w+")
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "start", "--free-ports", "--artifacts", artifacts, "--state", state, *flags],
            cwd=ROOT,
            env={"UNMASK_WARM_UP_CONNECTIONS": "1"} | os.environ,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._clients: list[RestClient | GrpcClient] = []

    @property
    def output(self) -> str:
        """What it has printed."""
        return (self.state / "output.log").read_text()

    @property
    def errors(self) -> list[str]:
        """The lines that the command itself has printed, which are not its log."""
        return [line for line in self.output.splitlines() if not line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log on this event."""
        lines = [json.loads(line) for line in self.output.splitlines() if line.startswith("{") and line.endswith("}")]
        return [line for line in lines if line["event"] == name]

    @property
    def record(self) -> Record:
        """Where it listens."""

        def found() -> Record | None:
            assert self.process.poll() is None, self.output
            return find_record(self.state)

        return awaited(found)

    def await_ready(self) -> RunningServer:
        """Wait for `/readyz`."""

        def ready() -> bool:
            assert self.process.poll() is None, self.output
            return self.probe("readyz")[0] == 200

        awaited(ready, hint=lambda: self.output)
        self.rest, self.grpc = RestClient(self.record.rest_url), GrpcClient(self.record.grpc_target)
        self._clients = [self.rest, self.grpc]
        return self

    def probe(self, path: str) -> tuple[int, str]:
        """Status and body of one of the supervisor's pages; 0 when it does not answer."""
        if (record := find_record(self.state)) is None:
            return 0, ""
        try:
            response = httpx.get(f"{record.supervisor_url}/{path}", timeout=5, trust_env=False)
            return response.status_code, response.text
        except httpx.HTTPError:
            return 0, ""

    def predict(self, data: bytes, *, grpc: bool = False, use_calibrator: bool = True) -> dict[str, Any]:
        """One verdict."""
        return (self.grpc if grpc else self.rest).predict(data, use_calibrator=use_calibrator)

    def post(self, path: str = "", **request: Any) -> httpx.Response:
        """A raw request to the predictions endpoint."""
        return httpx.post(self.record.rest_url + path, timeout=60, trust_env=False, **request)

    def metric(self, sample: str) -> float:
        """The value of one sample on the metrics page, 0 when it is not there."""
        lines = dict(line.rsplit(" ", 1) for line in self.probe("metrics")[1].splitlines() if not line.startswith("#"))
        return float(lines.get(sample, 0))

    def family(self) -> list[psutil.Process]:
        """The supervisor, the JVM and the workers."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    @property
    def jvm(self) -> psutil.Process:
        """TorchServe's frontend."""
        return next(p for p in self.family() if p.name() == "java")

    def workers(self) -> list[psutil.Process]:
        """The processes that hold the model."""
        return self.jvm.children()

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send a signal to the supervisor."""
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it and return its exit code."""
        for client in self._clients:
            client.close()
        if self.process.poll() is None:
            self.signal()
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            for process in self.family():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            raise
        finally:
            self._log.close()


def survivors(processes: list[psutil.Process], seconds: float = 10.0) -> list[psutil.Process]:
    """Those of `processes` that are still there after a while."""
    return psutil.wait_procs(processes, timeout=seconds)[1]
