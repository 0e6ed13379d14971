"""The supervisor: starts TorchServe's JVM, watches it, reports its health, and drains it before it stops."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from serve import process
from serve.errors import ServerDied, StartupFailed
from serve.health import Health, HealthServer
from serve.jvm.patches import DRAINING, REFUSING
from serve.ports import reserved_ports
from serve.record import FILE, Record, management_url, record_of, take_lock
from serve.settings import Settings
from serve.tokens import read_keys
from serve.torchserve.artifacts import install_archives
from serve.torchserve.logs import last_line, worker_exception
from serve.torchserve.management import Management, ModelStatus
from serve.torchserve.render import Command, Layout, render
from serve.warm_up import warm_up

POLL_SECONDS = 0.5
STARTUP_POLL_SECONDS = 0.1
SETTLE_SECONDS = 0.5  # how long nothing may be in hand before the drain is over: answers are still being written out
STALE_SECONDS = 10.0  # a look at the model older than this says nothing
# For the JVM to close its connections, which takes it 0.03; then it waits two seconds for work that none of them can bring.
CLOSING_SECONDS = 0.2
LAST_WORK_SECONDS = 10.0  # for what is still in hand when the drain's limit is over


class Supervisor:
    """One server, from start to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._management: Management
        self._versions: tuple[str, ...] = ()  # the default one at the start is the first
        self._layout: Layout
        self._jvm: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._hurry = False
        self._patience = CLOSING_SECONDS
        self._status: ModelStatus | None = None
        self._seen = 0.0
        self._known: frozenset[int] = frozenset()
        self._restarts = 0
        self._warm = False

    def health(self) -> Health:
        """The health now; called by the health server's threads."""
        status, alive = self._status, self._jvm is not None and self._jvm.poll() is None
        fresh = status is not None and time.monotonic() - self._seen < STALE_SECONDS
        serving = alive and fresh and status is not None and status.serving
        if self._stop.is_set():
            reason = "draining"
        elif self._jvm is not None and not alive:
            reason = "TorchServe is down"
        elif status is None:
            reason = "starting"
        elif not serving:
            reason = "waiting for workers" if fresh else "TorchServe does not answer"
        elif not self._warm:
            reason = "warming up"
        else:
            reason = "ready"
        return Health(
            alive=alive or self._jvm is None,
            ready=serving and self._warm and not self._stop.is_set(),
            reason=reason,
            workers_ready=len(status.ready) if status and alive and fresh else 0,
            workers_wanted=self._settings.worker_count * len(self._versions),
            worker_restarts=self._restarts,
            queue_pending=status.pending if status else 0,
            queue_capacity=status.capacity if status else 0,
            draining=self._stop.is_set(),
        )

    def run(self) -> int:
        """Serve until TERM or Ctrl-C; returns 0.

        Raises `FileError` when the artifacts are not what their manifest says, `PortTaken`, `AlreadyRunning`,
        `StartupFailed` with the reason when the model does not get ready, and `ServerDied` when TorchServe ends by itself.
        """
        with (
            take_lock(self._settings.state),
            reserved_ports(self._settings) as settings,
            tempfile.TemporaryDirectory(prefix="unmask-", ignore_cleanup_errors=True) as temporary,
        ):
            self._settings = settings
            layout = self._layout = Layout(settings.state.resolve(), Path(temporary))
            shutil.rmtree(layout.metrics, ignore_errors=True)
            shutil.rmtree(layout.work, ignore_errors=True)
            layout.make()
            archives = install_archives(settings, layout)
            self._versions = tuple(archives)
            keys = layout.keys if settings.token_auth else None
            self._management = Management(management_url(settings), keys)
            command = render(settings, archives, layout)
            with self._signals(), self._serving(command):
                record = record_of(settings, layout.logs, keys)
                record.save(layout.state)
                self._await_ready()
                warm_up(record, read_keys(keys).inference if keys else "", settings.warm_up_connections, self._stop)
                layout.counting.touch()
                self._warm = True
                if not self._stop.is_set():
                    self._announce(record)
                    self._watch()
                self._drain()
        return 0

    @contextlib.contextmanager
    def _serving(self, command: Command) -> Iterator[None]:
        """Run the JVM and the health server, and end both in any case."""
        settings, layout = self._settings, self._layout
        process.adopt_orphans()
        server = HealthServer(settings.host, settings.supervisor_port, self, layout.metrics)
        try:
            for name in ("torchserve", "worker"):
                (layout.logs / f"{name}.log").unlink(missing_ok=True)
            with (layout.logs / "jvm.log").open("wb") as output:
                self._jvm = process.start(command.arguments, command.environment, command.directory, output)
            yield
        finally:
            if self._jvm is not None:
                process.stop(self._jvm, self._patience)
            server.close()
            self._management.close()
            (layout.state / FILE).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """TERM, Ctrl-C and a closed terminal drain; a second one stops at once."""

        def handle(number: int, frame: object) -> None:
            self._hurry = self._stop.is_set()
            self._stop.set()

        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = [signal.signal(number, handle) for number in signals]
        try:
            yield
        finally:
            for number, old in zip(signals, before, strict=True):
                signal.signal(number, old)

    def _look(self) -> ModelStatus | None:
        """Ask TorchServe for its status, and keep it."""
        status = self._management.status(self._versions)
        if status is not None:
            if gone := self._known - status.ready:
                self._restarts += len(gone)
                for pid in gone:
                    mark_process_dead(pid, path=str(self._layout.metrics))  # type: ignore[no-untyped-call]
            self._known = status.ready
            self._status, self._seen = status, time.monotonic()
        return status

    def _await_ready(self) -> None:
        """Wait until the workers are ready or the server is told to stop. Raises `StartupFailed`."""
        deadline = time.monotonic() + self._settings.startup_timeout
        while not self._stop.wait(STARTUP_POLL_SECONDS):
            status = self._look()
            if status is not None and status.serving:
                return
            if reason := self._startup_failure(status):
                raise StartupFailed(reason)
            if time.monotonic() > deadline:
                raise StartupFailed(
                    f"the workers were not ready after {self._settings.startup_timeout} s; see {self._layout.logs}"
                )

    def _startup_failure(self, status: ModelStatus | None) -> str | None:
        """Why the model will never be ready, None as long as it may; TorchServe itself would retry for five minutes."""
        layout = self._layout
        if layout.load_error.is_file() and (message := layout.load_error.read_text(encoding="utf-8")):
            return f"the worker can't load the model: {message}"
        if cause := worker_exception(layout.logs / "worker.log"):
            return f"the worker died while it loaded the model: {cause}"
        if self._jvm is not None and (code := self._jvm.poll()) is not None:
            return f"TorchServe ended with {code}: {last_line(layout.logs / 'jvm.log')}"
        if status is not None and not status.registered:
            return f"TorchServe did not take the archive: {last_line(layout.logs / 'torchserve.log')}"
        return None

    def _announce(self, record: Record) -> None:
        settings, seconds = self._settings, time.clock_gettime(time.CLOCK_BOOTTIME) - record.started
        print(
            f"ready after {seconds:.1f} s: {settings.archive} on {settings.device}, "
            f"{settings.worker_count} workers with {settings.worker_threads} threads each\n"
            f"  versions    {self._versions[0]} (default){''.join(f', {version}' for version in self._versions[1:])}\n"
            f"  REST        {record.rest_url}\n"
            f"  gRPC        {record.grpc_target}\n"
            f"  health      {record.supervisor_url}/readyz, /livez, /metrics\n"
            f"  management  {record.management_url}\n"
            f"  logs        {record.logs}",
            flush=True,
        )

    def _watch(self) -> None:
        """Watch TorchServe until the server is told to stop.

        Raises `ServerDied` when the JVM goes first, or the workers do not come back: after five minutes of failed starts
        TorchServe gives up on a worker and goes on without it.
        """
        assert self._jvm is not None
        served = time.monotonic()
        while not self._stop.wait(POLL_SECONDS):
            if (code := self._jvm.poll()) is not None:
                raise ServerDied(f"TorchServe ended with {code}; its last words are in {self._layout.logs}")
            status = self._look()
            if status is not None and status.serving:
                served = time.monotonic()
            elif time.monotonic() - served > 2 * self._settings.startup_timeout:
                raise ServerDied(f"the workers do not come back; the reason is in {self._layout.logs}")

    def _drain(self) -> None:
        """Serve what still comes for the grace period, then refuse it, until nothing is in hand any more.

        Every answer closes its connection from now on, so that who keeps one open goes elsewhere. A second signal ends it all
        at once; at the limit, what is in hand gets a last few seconds.
        """
        assert self._jvm is not None
        print("draining", file=sys.stderr, flush=True)
        (self._layout.work / DRAINING).touch()
        start = idle_since = time.monotonic()
        limit = self._settings.drain_grace + self._settings.drain_limit
        while not self._hurry and self._jvm.poll() is None and (now := time.monotonic()) - start < limit:
            if now - start >= self._settings.drain_grace:
                (self._layout.work / REFUSING).touch()
            status = self._look()
            if status is None or status.pending or requests_in_progress(self._layout.metrics):
                idle_since = now
            elif now - start >= self._settings.drain_grace and now - idle_since >= SETTLE_SECONDS:
                return
            time.sleep(0.05)
        if not self._hurry:
            self._patience = LAST_WORK_SECONDS


def requests_in_progress(metrics: Path) -> int:
    """Requests that the workers have in hand: TorchServe's own queue length does not count them."""
    registry = CollectorRegistry()
    collector = MultiProcessCollector(registry, path=str(metrics))  # type: ignore[no-untyped-call]
    for family in collector.collect():  # type: ignore[no-untyped-call]
        if family.name == "unmask_requests_in_progress":
            return int(sum(sample.value for sample in family.samples))
    return 0
