"""What the handler measures, as Prometheus histograms in seconds and counters, summed over workers by the supervisor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, *SECONDS)  # postprocess takes tenths of a millisecond
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = ("decode", "inference", "postprocess")


class Metrics(Protocol):
    """Where the handler's core reports what it did."""

    def stage(self, name: str, seconds: float) -> None:
        """One run of a stage: decode per photo, inference and postprocess per run of the model."""

    def batch(self, size: int, seconds: float) -> None:
        """One batch of `size` requests, each of which spent `seconds` in the handler."""

    def verdict(self, prediction: str) -> None:
        """One verdict was given."""

    def error(self, code: str) -> None:
        """One request failed with this code."""

    def in_progress(self, size: int) -> None:
        """So many requests are in the handler now."""


class NoMetrics:
    """Measures nothing, where prometheus_client is not installed."""

    def stage(self, name: str, seconds: float) -> None: ...

    def batch(self, size: int, seconds: float) -> None: ...

    def verdict(self, prediction: str) -> None: ...

    def error(self, code: str) -> None: ...

    def in_progress(self, size: int) -> None: ...


class PrometheusMetrics:
    """Metrics in prometheus_client's multiprocess mode: each worker writes files in `PROMETHEUS_MULTIPROC_DIR`."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        registry = CollectorRegistry()  # its own, so that a second handler in one process is no clash of names
        self._request = Histogram(
            "unmask_request_seconds", "Time a request spent in the handler.", buckets=SECONDS, registry=registry
        )
        stage = Histogram(
            "unmask_stage_seconds",
            "Time by stage: decode per photo, inference and postprocess per run of the model.",
            ["stage"],
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self._stages = {name: stage.labels(name) for name in STAGES}
        self._batch = Histogram("unmask_batch_size", "Requests in a batch.", buckets=BATCHES, registry=registry)
        self._verdicts = Counter("unmask_verdicts", "Verdicts given.", ["prediction"], registry=registry)
        self._errors = Counter("unmask_errors", "Requests that failed, by error code.", ["code"], registry=registry)
        self._in_progress = Gauge(
            "unmask_requests_in_progress",
            "Requests in the handler now.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def stage(self, name: str, seconds: float) -> None:
        self._stages[name].observe(seconds)

    def batch(self, size: int, seconds: float) -> None:
        self._batch.observe(size)
        for _ in range(size):
            self._request.observe(seconds)

    def verdict(self, prediction: str) -> None:
        self._verdicts.labels(prediction).inc()

    def error(self, code: str) -> None:
        self._errors.labels(code).inc()

    def in_progress(self, size: int) -> None:
        self._in_progress.set(size)


def open_metrics() -> Metrics:
    """Prometheus metrics where somebody collects them, none otherwise."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return NoMetrics()
    try:
        return PrometheusMetrics()
    except ImportError:
        return NoMetrics()


@contextmanager
def timed(metrics: Metrics, name: str) -> Iterator[None]:
    """Report the time of a block as one run of stage `name`, also when it raises."""
    start = time.perf_counter()
    try:
        yield
    finally:
        metrics.stage(name, time.perf_counter() - start)
