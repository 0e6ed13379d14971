"""Looks at TorchServe twice a second, and says what is known of it: alive, ready, draining."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prometheus_client.core import Metric

from serve.health import Health
from serve.metrics.declared import SupervisorMetric, family
from serve.metrics.jvm import jvm_families
from serve.settings import Settings
from serve.torchserve.management import Management, ModelStatus

if TYPE_CHECKING:
    from serve.metrics.worker_files import WorkerFiles
    from serve.processes.workers import Workers

STALE_SECONDS = 10.0  # a look at the model older than this says nothing
DEFAULT_SECONDS = 2.0  # how often TorchServe is asked for its default version: each question costs it and us two milliseconds


class Watch:
    """What is known of one server.

    versions: those served, the default one at the start first. stopping: set when the server is to stop.
    """

    def __init__(
        self,
        settings: Settings,
        versions: Sequence[str],
        management: Management,
        workers: Workers,
        files: WorkerFiles,
        stopping: threading.Event,
    ) -> None:
        self._settings, self._versions, self._management = settings, tuple(versions), management
        self._workers, self._files, self._stopping = workers, files, stopping
        self.jvm: subprocess.Popen[bytes] | None = None
        self.warm = False  # the warm-up is over
        self._status: ModelStatus | None = None
        self._seen = time.monotonic()
        self._asked_default = float("-inf")

    def look(self) -> ModelStatus | None:
        """Ask TorchServe for its status, and keep it; see which workers have ended."""
        now = time.monotonic()
        known = self._status.default if self._status and now - self._asked_default < DEFAULT_SECONDS else ""
        status = self._management.status(self._versions, known)
        if status is not None:
            self._status, self._seen = status, time.monotonic()
            if not known:
                self._asked_default = now
        if not self._stopping.is_set() and self._workers.look():
            self._files.bury(self._workers.alive)
        return status

    def default_version(self) -> str:
        """The version that answers where a request names none, as of the last look."""
        return (self._status and self._status.default) or self._versions[0]

    @property
    def silent(self) -> float:
        """Seconds since TorchServe last answered."""
        return time.monotonic() - self._seen

    @property
    def hung(self) -> bool:
        """Whether TorchServe runs and has not answered for longer than it may, after it once was ready."""
        return self.warm and self._running and self.silent > self._settings.liveness_timeout

    @property
    def _running(self) -> bool:
        return self.jvm is not None and self.jvm.poll() is None

    def health(self) -> Health:
        """The health now; called by the health server's threads."""
        status, fresh, running = self._status, self.silent < STALE_SECONDS, self._running
        known = status if status is not None and fresh and running else ModelStatus(registered=False)
        ready, wanted = len(known.ready), self._settings.worker_count * len(self._versions)
        if self._stopping.is_set():
            reason = "draining"
        elif self.jvm is not None and not running:
            reason = "TorchServe is down"
        elif status is None:
            reason = "starting"
        elif not fresh:
            reason = "TorchServe does not answer"
        elif not (known.serving if self.warm else known.complete):
            reason = "waiting for workers"
        elif not self.warm:
            reason = "warming up"
        else:
            reason = "ready" if ready >= wanted else f"ready with {ready} of {wanted} workers"
        return Health(
            alive=self.jvm is None or (running and not self.hung),
            ready=self.warm and known.serving and not self._stopping.is_set(),
            reason=reason,
            workers_ready=ready,
            workers_wanted=wanted,
            queue_pending={version: known.pending.get(version, 0) for version in self._versions},
            queue_limit=self._settings.queue_size,
            draining=self._stopping.is_set(),
        )

    def collect(self) -> Iterable[Metric]:
        """The health as metrics, and the JVM's own."""
        health, default = self.health(), self.default_version()
        for metric, value in (
            (SupervisorMetric.READY, health.ready),
            (SupervisorMetric.DRAINING, health.draining),
            (SupervisorMetric.WORKERS_READY, health.workers_ready),
            (SupervisorMetric.WORKERS_WANTED, health.workers_wanted),
        ):
            yield _only(metric, value)
        pending, limit, defaults = (
            family(metric)
            for metric in (SupervisorMetric.QUEUE_PENDING, SupervisorMetric.QUEUE_LIMIT, SupervisorMetric.DEFAULT_VERSION)
        )
        for version in self._versions:
            pending.add_metric([version], health.queue_pending[version])
            limit.add_metric([version], health.queue_limit)
            defaults.add_metric([version], version == default)
        yield from (pending, limit, defaults)
        if self._settings.device != "cpu":
            yield _only(SupervisorMetric.GPUS_WANTED, self._settings.worker_count)
        if self.jvm is not None:
            yield from jvm_families(self.jvm.pid)


def _only(metric: SupervisorMetric, value: float) -> Metric:
    found = family(metric)
    found.add_metric([], value)
    return found
