"""Reads what the frontend and the workers write on each request, and hands each record to all that make something of it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import Metric

from serve.logs.log import Emit
from serve.records.access_log import AccessLog
from serve.records.metrics import RequestMetrics
from serve.records.pipes import Pipe, Reader
from serve.records.record import Join, RequestRecord, read_worker
from serve.records.routes import OTHER
from serve.records.spans import open_spans
from serve.settings import Settings
from serve.torchserve.render import Layout

COMPLAINT_SECONDS = 60.0


class Records:
    """One record for each request that reaches the server.

    versions: those served. default_version: which of them is the default one now. emit: writes a line of the log.
    Raises `UsageError` when spans are wanted and their packages are not installed.
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
        self._spans = open_spans(settings, emit)
        self._since: int | None = None
        self._complain_next = 0.0
        self._lock = threading.Lock()  # a scrape takes a turn of its own, to count what was answered before it
        self._access: Pipe
        self._worker: Pipe
        self._reader: Reader | None = None

    @property
    def collector(self) -> Records:
        """What to register where metrics are collected."""
        return self

    def collect(self) -> Iterable[Metric]:
        """The metrics, after all lines in the pipes have been read; the frontend keeps a line for a tenth of a second."""
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
        try:
            self._log.flush(over=True)
        except Exception as error:
            self._complain(error)
        with self._lock:
            self._access.close()
            self._worker.close()
        if self._spans:
            self._spans.close()

    def _turn(self) -> None:
        """Take what waits. Never raises: the thread goes on, whatever the log or a receiver of spans does."""
        try:
            with self._lock:
                self._read()
        except Exception as error:
            self._complain(error)

    def _read(self) -> None:
        # The frontend's first: the worker has written its part before the frontend has written its line.
        answered, worked = self._access.lines(), self._worker.lines()
        for line in worked:
            try:
                self._metrics.lost("frontend", self._join.add(read_worker(line)))
            except (ValueError, TypeError, RecursionError):
                self._metrics.lost("worker")
        default = self._default()
        for line in answered:
            try:
                record = self._join.record(line, default)
            except (ValueError, IndexError):
                self._metrics.lost("frontend")
                continue
            if record is not None and self._since is not None and record.arrived >= self._since:
                self._take(record)
        self._metrics.lost("frontend", self._access.take_lost() + self._join.expire(time.monotonic_ns()))
        self._metrics.lost("worker", self._worker.take_lost())
        self._metrics.flush()
        self._log.flush()
        if self._spans:
            self._spans.flush()

    def _take(self, record: RequestRecord) -> None:
        if record.worker is None and record.status in ("200", "OK") and record.route is not OTHER:
            self._metrics.lost("worker")
        # A caller that records its trace does so elsewhere, whether spans are sent from here or not.
        recorded = record.parent is not None and record.parent.sampled
        try:
            if self._spans and (traced := self._spans.add(record)):
                record.trace_id, recorded = traced, True
        except Exception as error:
            self._complain(error)
        self._metrics.observe(record, record.trace_id if recorded else None)
        try:
            self._log.write(record)
        except Exception as error:
            self._complain(error)

    def _complain(self, error: Exception) -> None:
        if (now := time.monotonic()) >= self._complain_next:
            self._complain_next = now + COMPLAINT_SECONDS
            with contextlib.suppress(Exception):
                self._emit("records", "error", message=f"{type(error).__name__}: {error}")
