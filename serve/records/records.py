"""Reads what the frontend and the workers write on each request, and hands each record to all that make something of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import Metric

from serve.records.access_log import AccessLog, Emit
from serve.records.metrics import RequestMetrics
from serve.records.pipes import Pipe, Reader
from serve.records.record import TRACEPARENT, Join, read_worker
from serve.settings import Settings
from serve.torchserve.render import Layout


class Records:
    """One record for each request that reaches the server.

    versions: those served. default_version: which of them is the default one now. emit: writes a line of the log.
    """

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        versions: Sequence[str],
        default_version: Callable[[], str],
        emit: Emit,
    ) -> None:
        self._layout, self._default, self._emit = layout, default_version, emit
        self._join = Join(versions, settings.rest_port)
        self._metrics = RequestMetrics(versions, settings.queue_size)
        self._log = AccessLog(emit, settings.access_log_share)
        self._since: int | None = None
        self._lock = threading.Lock()  # a scrape takes a turn of its own, to count what was answered before it
        self._access: Pipe
        self._worker: Pipe
        self._reader: Reader | None = None

    @property
    def collector(self) -> Records:
        """What to register where metrics are collected."""
        return self

    def collect(self) -> Iterable[Metric]:
        """The metrics, after all lines that wait have been read."""
        if self._reader is not None:
            self._turn()
        yield from self._metrics.registry.collect()

    def start(self) -> None:
        """Make the pipes and read them; before the frontend and the workers open them."""
        self._access, self._worker = Pipe(self._layout.access), Pipe(self._layout.requests)
        self._reader = Reader((self._access, self._worker), self._turn)
        self._reader.start()

    def begin(self) -> None:
        """Count and log the requests that arrive from now on; those before are the warm-up's."""
        self._since = time.monotonic_ns()

    def close(self) -> None:
        """Take what was written until now, and end. After the frontend has ended, as its last lines come then."""
        if self._reader is None:
            return
        self._reader.close()
        self._reader = None
        self._turn()
        with self._lock:
            self._log.flush(over=True)
            self._access.close()
            self._worker.close()

    def _turn(self) -> None:
        with self._lock:
            # The frontend's first: the worker has written its part before the frontend has written its line.
            answered, worked = self._access.lines(), self._worker.lines()
            for line in worked:
                try:
                    self._metrics.lost("worker", self._join.add(read_worker(line)))
                except (ValueError, TypeError, RecursionError):
                    self._metrics.lost("worker")
            default = self._default()
            for line in answered:
                self._take(line, default)
            self._metrics.lost("frontend", self._access.take_lost() + self._join.expire(time.monotonic_ns()))
            self._metrics.lost("worker", self._worker.take_lost())
            self._metrics.flush()
            self._log.flush()

    def _take(self, line: bytes, default: str) -> None:
        try:
            record = self._join.record(line, default)
        except (ValueError, IndexError):
            return self._metrics.lost("frontend")
        if record is None or self._since is None or record.arrived < self._since:
            return None
        if record.worker is None and record.status in ("200", "OK"):
            self._metrics.lost("worker")
        exemplar = None
        if record.trace and (found := TRACEPARENT.fullmatch(record.trace)):
            record.trace_id = found[1]
            exemplar = {"trace_id": found[1]} if int(found[3], 16) & 1 else None
        self._metrics.observe(record, exemplar)
        return self._log.write(record)
