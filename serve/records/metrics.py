"""What is counted of each request, declared once each, in prometheus_client's objects and a registry of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from enum import Enum

from prometheus_client import CollectorRegistry, Counter, Histogram

from detector.metrics import Declaration
from serve.records.record import RequestRecord
from serve.records.routes import UNKNOWN

SECONDS = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3),
    *(0.4, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0),
)
DEPTHS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
CODES = {
    "rest": ("200", "400", "404", "413", "415", "422", "499", "500", "503", "507"),
    "grpc": ("OK", "CANCELLED", "NOT_FOUND", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE"),
}
"""The statuses that a server has been seen to answer with; there from the start, so that the first error is an increase."""
SERVED = {"rest": ("predict", "explain", "v1", "v2"), "grpc": ("predict", "v2")}


class RequestMetric(Enum):
    """What the supervisor counts of requests, refused ones too."""

    REQUESTS = Declaration(
        "Counter",
        "unmask_requests",
        "Requests that were answered, by what their client got: the HTTP status or the name of the gRPC one.",
        ("protocol", "kind", "version", "code"),
    )
    DURATION = Declaration(
        "Histogram",
        "unmask_request_duration_seconds",
        "Time from a request's arrival to its answer, of those that were not refused.",
        ("protocol", "kind", "version"),
        SECONDS,
    )
    REFUSED = Declaration(
        "Histogram",
        "unmask_refused_duration_seconds",
        "Time from the arrival of a request that no worker took to its refusal.",
        ("protocol", "version"),
        SECONDS,
    )
    DEPTH = Declaration(
        "Histogram",
        "unmask_queue_depth",
        "Requests that waited when another one arrived; one that was refused found a full queue.",
        ("version",),
        DEPTHS,
    )
    LOST = Declaration(
        "Counter",
        "unmask_records_lost",
        "Lines on requests that never came or can't be read, by who should have written them.",
        ("source",),
        values=("frontend", "worker"),
    )


class RequestMetrics:
    """Counts records. versions: those served. queue_size: where requests are refused."""

    def __init__(self, versions: Sequence[str], queue_size: int) -> None:
        self.registry = CollectorRegistry()
        depths = (*(depth for depth in DEPTHS if depth < queue_size), queue_size)
        self._requests = self._counter(RequestMetric.REQUESTS)
        self._durations = self._histogram(RequestMetric.DURATION)
        self._refused = self._histogram(RequestMetric.REFUSED)
        self._depth = self._histogram(RequestMetric.DEPTH, depths)
        self._lost = self._counter(RequestMetric.LOST)
        self._queue_size = queue_size
        self._pending: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        self._children: dict[tuple[object, ...], Histogram] = {}
        self._create(versions)

    def _counter(self, metric: RequestMetric) -> Counter:
        declared = metric.value
        return Counter(declared.name, declared.text, declared.labels, registry=self.registry)

    def _histogram(self, metric: RequestMetric, buckets: Sequence[float] = ()) -> Histogram:
        declared = metric.value
        buckets = buckets or declared.buckets
        return Histogram(declared.name, declared.text, declared.labels, buckets=buckets, registry=self.registry)

    def _create(self, versions: Sequence[str]) -> None:
        for source in RequestMetric.LOST.value.values:
            self._lost.labels(source)
        for protocol, kinds in SERVED.items():
            for version in versions:
                self._refused.labels(protocol, version)
                for kind in kinds:
                    self._durations.labels(protocol, kind, version)
                    for code in CODES[protocol]:
                        self._requests.labels(protocol, kind, version, code)
        self._requests.labels("rest", "other", UNKNOWN, "404")
        for version in versions:
            self._depth.labels(version)

    def observe(self, record: RequestRecord, trace_id: str | None) -> None:
        """Count a record. trace_id: the exemplar, where that trace is recorded. `flush` makes the count seen."""
        protocol, kind, version = record.protocol, record.route.kind, record.version
        self._pending[protocol, kind, version, record.status] += 1
        worker = record.worker
        if worker is None and record.refused:
            self._child(self._refused, protocol, version).observe(record.seconds)
            self._child(self._depth, version).observe(self._queue_size)
            return
        exemplar = {"trace_id": trace_id} if trace_id else None
        self._child(self._durations, protocol, kind, version).observe(record.seconds, exemplar)
        if worker is not None and worker.depth is not None:
            self._child(self._depth, version).observe(worker.depth)

    def _child(self, histogram: Histogram, *labels: str) -> Histogram:
        """`histogram.labels(*labels)`, which costs a microsecond, remembered."""
        key = (histogram, *labels)
        if (child := self._children.get(key)) is None:
            child = self._children[key] = histogram.labels(*labels)
        return child

    def flush(self) -> None:
        """Add the counts of many records at once."""
        for labels, count in self._pending.items():
            self._requests.labels(*labels).inc(count)
        self._pending.clear()

    def lost(self, source: str, count: int = 1) -> None:
        """Count lines that were lost or can't be read."""
        if count:
            self._lost.labels(source).inc(count)
