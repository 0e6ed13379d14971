"""What the handler measures, declared once each: Prometheus histograms in seconds, counters and gauges."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

SECONDS = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
STAGE_SECONDS = (0.0001, 0.00025, 0.0005, *SECONDS)  # postprocess takes tenths of a millisecond
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = ("decode", "inference", "postprocess")


@dataclass(frozen=True)
class Declaration:
    """One metric. kind: Histogram, Counter or Gauge. buckets: a histogram's upper bounds. label: name of its label, where it
    has one; values: those of the label that are there from the start."""

    kind: str
    name: str
    text: str
    buckets: tuple[float, ...] = ()
    label: str = ""
    values: tuple[str, ...] = ()


class Metric(Enum):
    """All metrics of a worker. The supervisor sums them over the workers."""

    REQUEST_SECONDS = Declaration("Histogram", "unmask_request_seconds", "Time a request spent in the handler.", SECONDS)
    STAGE_SECONDS = Declaration(
        "Histogram",
        "unmask_stage_seconds",
        "Time by stage: decode per photo, inference and postprocess per run of the model.",
        STAGE_SECONDS,
        label="stage",
        values=STAGES,
    )
    BATCH_SIZE = Declaration("Histogram", "unmask_batch_size", "Requests in a batch.", BATCHES)
    VERDICTS = Declaration("Counter", "unmask_verdicts", "Verdicts given.", label="prediction")
    ERRORS = Declaration("Counter", "unmask_errors", "Requests that failed, by error code.", label="code")
    IN_PROGRESS = Declaration("Gauge", "unmask_requests_in_progress", "Requests in the handler now.")


class Metrics:
    """The metrics of one worker.

    collected: whether to write them, in prometheus_client's multiprocess mode, to files in `PROMETHEUS_MULTIPROC_DIR`; without
    it nothing is measured.
    """

    def __init__(self, *, collected: bool = False) -> None:
        self._instruments: dict[Metric, Any] = {}
        if collected:
            import prometheus_client

            registry = prometheus_client.CollectorRegistry()  # its own, so that a second handler in one process is no clash
            self._instruments = {metric: _instrument(prometheus_client, registry, metric.value) for metric in Metric}

    def count(self, metric: Metric, label: str | None = None) -> None:
        """Add one to a counter."""
        if instrument := self._of(metric, label):
            instrument.inc()

    def observe(self, metric: Metric, value: float, label: str | None = None, *, times: int = 1) -> None:
        """Add a value to a histogram, so many times."""
        if instrument := self._of(metric, label):
            for _ in range(times):
                instrument.observe(value)

    def set(self, metric: Metric, value: float) -> None:
        """Set a gauge."""
        if instrument := self._of(metric, None):
            instrument.set(value)

    @contextmanager
    def timed(self, metric: Metric, label: str | None = None) -> Iterator[None]:
        """Add the time of a block to a histogram, also when the block raises."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.observe(metric, time.perf_counter() - start, label)

    def _of(self, metric: Metric, label: str | None) -> Any:
        instrument = self._instruments.get(metric)
        return instrument.labels(label) if instrument and label is not None else instrument


def open_metrics() -> Metrics:
    """Metrics, collected where `PROMETHEUS_MULTIPROC_DIR` is set and prometheus_client is installed."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return Metrics()
    try:
        return Metrics(collected=True)
    except ImportError:
        return Metrics()


def _instrument(library: Any, registry: Any, declared: Declaration) -> Any:
    more: dict[str, Any] = {"buckets": declared.buckets} if declared.buckets else {}
    if declared.kind == "Gauge":
        more["multiprocess_mode"] = "livesum"
    labels = [declared.label] if declared.label else []
    instrument = getattr(library, declared.kind)(declared.name, declared.text, labels, registry=registry, **more)
    for value in declared.values:
        instrument.labels(value)
    return instrument
