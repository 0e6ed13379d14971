"""The supervisor: starts TorchServe's JVM, watches it, reports its health, and drains it before it stops."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from detector.errors import UnmaskError
from serve.drain import Drain
from serve.errors import ServerDied
from serve.health import HealthServer
from serve.logs.causes import last_line
from serve.logs.jvm_output import JvmOutput
from serve.logs.log import Log
from serve.metrics.feedback import Feedback, read_labels
from serve.metrics.gpu import GpuMetrics
from serve.metrics.models import ModelMetrics
from serve.metrics.worker_files import WorkerFiles
from serve.ports import reserved_ports
from serve.processes import process
from serve.processes.priorities import Intake
from serve.processes.workers import Workers
from serve.record import FILE, announcement, management_url, record_of, take_lock
from serve.records import Records
from serve.settings import Settings
from serve.startup import await_ready
from serve.tokens import read_keys
from serve.torchserve.artifacts import install_archives, served_manifests
from serve.torchserve.management import Management
from serve.torchserve.render import Command, Layout, render
from serve.warm_up import warm_up
from serve.watch import Watch

POLL_SECONDS = 0.5
# For the JVM to close its connections, which takes it 0.03; then it waits two seconds for work that none of them can bring.
CLOSING_SECONDS = 0.2


class Supervisor:
    """One server, from start to stop. release: of Unmask, for `unmask_build_info`."""

    def __init__(self, settings: Settings, release: str = "") -> None:
        self._settings, self._release = settings, release
        self._layout: Layout
        self._log: Log
        self._output: JvmOutput
        self._files: WorkerFiles
        self._records: Records
        self._watch: Watch
        self._jvm: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._hurry = False
        self._patience = CLOSING_SECONDS

    def run(self) -> int:
        """Serve until TERM or Ctrl-C; returns 0.

        Raises `FileError` when the artifacts are not what their manifest says, `PortTaken`, `AlreadyRunning`,
        `StartupFailed` with the reason when the model does not get ready, and `ServerDied` when TorchServe ends by itself.
        """
        self._log = Log(self._settings.log_format, self._settings.log_file)
        try:
            with (
                take_lock(self._settings.state),
                reserved_ports(self._settings) as settings,
                tempfile.TemporaryDirectory(prefix="unmask-", ignore_cleanup_errors=True) as temporary,
            ):
                self._settings = settings
                self._serve(Layout(settings.state.resolve(), Path(temporary)))
        except UnmaskError as error:
            if self._log.as_json:  # at a terminal the command says it
                self._log.emit("failed", "error", code=error.code, message=error.message)
            raise
        finally:
            self._log.close()
        return 0

    def _serve(self, layout: Layout) -> None:
        settings, self._layout = self._settings, layout
        for folder in (layout.metrics, layout.work):
            shutil.rmtree(folder, ignore_errors=True)
        layout.make()
        archives = install_archives(settings, layout)
        keys = layout.keys if settings.token_auth else None
        workers = Workers(self._log.emit)
        self._files = WorkerFiles(layout.metrics, layout.work / "metrics", self._log.emit)
        self._output = JvmOutput(self._log.emit, workers.watch, quiet=settings.log_level in ("ERROR", "WARN"))
        with contextlib.closing(Management(management_url(settings), keys)) as management, self._signals():
            self._watch = Watch(settings, tuple(archives), management, workers, self._files, self._stop)
            self._records = Records(settings, layout, tuple(archives), self._watch.default_version, self._log.emit)
            self._records.start()  # before the JVM, which opens the pipe, and before its log is set up for it
            with contextlib.closing(self._records), self._running(render(settings, archives, layout), workers):
                record = record_of(settings, archives, self._log.place, keys)
                record.save(layout.state)
                await_ready(settings, layout, self._watch, self._output, self._stop)
                warm_up(record, read_keys(keys).inference if keys else "", settings.warm_up_connections, self._stop)
                layout.counting.touch()
                self._records.begin()
                self._watch.warm = True
                if not self._stop.is_set():
                    self._log.emit("ready", message=announcement(record), pid=record.pid, versions=record.versions)
                    self._watch_it()
                self._drain()

    @contextlib.contextmanager
    def _running(self, command: Command, workers: Workers) -> Iterator[None]:
        """Run the JVM and the health server, and end both in any case."""
        settings, layout = self._settings, self._layout
        process.adopt_orphans()
        manifests = served_manifests(settings)
        warnings = {version: manifest.warnings for version, manifest in manifests.items()}
        for version, found in warnings.items():
            for warning in found:
                said = f"version {version}: {warning['message']} [{warning['code']}]"
                self._log.emit("model_warning", "warning", message=said, version=version, code=warning["code"])
        feedback = Feedback(manifests)
        disable_created_metrics()  # type: ignore[no-untyped-call] # a series for each other one, which nothing reads
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        for collector in (
            *(self._watch, workers, self._files, self._records.collector, feedback, GpuMetrics()),
            *(ModelMetrics(settings, manifests, self._release), self._log),
        ):
            registry.register(collector)

        def take(body: bytes) -> int:
            labels = read_labels(body, manifests)
            feedback.add(labels)
            return len(labels)

        server = HealthServer(
            *(settings.host, settings.supervisor_port),
            health=lambda: replace(self._watch.health(), warnings=warnings),
            registry=registry,
            feedback=take,
            emit=self._log.emit,
        )
        try:
            with os.fdopen(self._output.writing, "wb", closefd=False) as output:
                self._jvm = self._watch.jvm = process.start(command.arguments, command.environment, command.directory, output)
            self._output.start()
            yield
        finally:
            self._stop.set()  # what ends from now on is ended by us
            if self._jvm is not None:
                process.stop(self._jvm, self._patience)
                self._output.finish()
            server.close()
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

    def _watch_it(self) -> None:
        """Watch TorchServe until the server is told to stop.

        Raises `ServerDied` when the JVM goes first, does not answer for twice the time after which `/livez` says so, or the
        workers do not come back: after five minutes of failed starts TorchServe gives up on a worker and goes on without it.
        """
        assert self._jvm is not None
        served = time.monotonic()
        told, intake = False, Intake(self._jvm.pid)
        while not self._stop.wait(POLL_SECONDS):
            intake.lower()
            if (code := self._jvm.poll()) is not None:
                self._output.finish()
                raise ServerDied(f"TorchServe ended with {code}; its last line: {last_line(self._output.lines())}")
            status = self._watch.look()
            if self._watch.hung != told:
                told = not told
                silent = round(self._watch.silent)
                if told:
                    message = f"TorchServe has not answered for {silent} s"
                    self._log.emit("torchserve_hung", "error", message=message, silent_seconds=silent)
                else:
                    self._log.emit(
                        "torchserve_answers_again", "info", message="TorchServe answers again", silent_seconds=silent
                    )
            if self._watch.silent > 2 * self._settings.liveness_timeout:
                raise ServerDied(f"TorchServe has not answered for {self._watch.silent:.0f} s")
            if status is not None and status.serving:
                served = time.monotonic()
            elif status is not None and time.monotonic() - served > 2 * self._settings.startup_timeout:
                raise ServerDied(f"the workers do not come back; its last line: {last_line(self._output.lines())}")

    def _drain(self) -> None:
        """Take no more requests and answer those that came. A second signal ends it all at once."""
        assert self._jvm is not None
        self._log.emit("draining", message="draining")
        settings = self._settings
        ports = (settings.rest_port, settings.grpc_port)
        work, grace, limit = self._layout.work, settings.drain_grace, settings.drain_limit
        Drain(self._jvm, work, ports, grace, limit, self._in_hand, lambda: self._hurry or self._watch.hung).run()
        self._patience = 0.0

    def _in_hand(self) -> bool:
        """Whether requests wait or are being answered, or nobody can tell."""
        status = self._watch.look()
        return status is None or any(status.pending.values()) or self._files.requests_in_progress() > 0
