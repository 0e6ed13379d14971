"""Spans of requests, their stages and their batches, sent to an OTLP receiver (`unmask[otel]`)."""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING, Any

from detector.errors import UsageError
from serve.records.record import RequestRecord, TraceParent, WorkerRecord
from serve.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import SpanContext

    from serve.logs.log import Emit

# What a client asks for with its traceparent costs a fifth of a millisecond; more of it is not traced, however many ask.
TRACED_PER_SECOND = 500
BATCHES, BATCH_SECONDS = 1000, 10.0  # batches that wait for the rest of their requests, and for how long
CLOSING_SECONDS = 3.0  # a receiver that does not answer delays no stop for longer
COMPLAINT_SECONDS = 60.0
_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(slots=True)
class _Batch:
    """What is known of a batch: how many of its requests are to come, and the spans of those that are traced."""

    id: str
    requests: int
    to_come: int
    received: int
    done: int
    photos: int = 0
    spans: list[SpanContext] = field(default_factory=list)


class Spans:
    """Makes spans of records.

    A request is traced as its traceparent says; of those without one, a share: the same that an access log of this share has.
    Times are those of the records, and stages follow one another from when the worker had the request.
    """

    def __init__(self, provider: TracerProvider, share: float) -> None:
        from opentelemetry import context, trace

        self._context, self._trace, self._provider = context, trace, provider
        self._tracer = provider.get_tracer("unmask")
        self._below = int(share * 2**32)
        self._epoch = time.time_ns() - time.monotonic_ns()
        self._second, self._left = 0, 0
        self._batches: OrderedDict[str, _Batch] = OrderedDict()

    def add(self, record: RequestRecord) -> str | None:
        """Make the spans of a record. Returns the id of its trace where it is traced."""
        context = self._request(record) if self._chosen(record) else None
        if record.worker is not None:
            self._join_batch(record.worker, context)
        return f"{context.trace_id:032x}" if context else None

    def flush(self) -> None:
        """Give up on batches whose requests do not all come."""
        limit = time.monotonic_ns() - int(BATCH_SECONDS * 1e9)
        while self._batches and ((oldest := next(iter(self._batches.values()))).done < limit or len(self._batches) > BATCHES):
            self._end_batch(oldest)

    def close(self) -> None:
        """Send what is left."""
        for batch in list(self._batches.values()):
            self._end_batch(batch)
        # The exporter tries again for ten seconds, and its own shutdown takes no limit.
        last = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        last.start()
        last.join(CLOSING_SECONDS)

    def _chosen(self, record: RequestRecord) -> bool:
        if record.parent is not None:
            if not record.parent.sampled:
                return False
        elif zlib.crc32((record.request_id or "").encode()) >= self._below:
            return False
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._left = second, TRACED_PER_SECOND
        self._left -= 1
        return self._left >= 0

    def _request(self, record: RequestRecord) -> SpanContext:
        trace, start = self._trace, record.arrived + self._epoch
        span = self._tracer.start_span(
            record.route.template if record.protocol == "grpc" else f"{record.method} {record.route.template}".rstrip(),
            context=self._parent(record.parent),
            kind=trace.SpanKind.SERVER,
            attributes=_attributes(record),
            start_time=start,
        )
        if record.server_failed:
            span.set_status(trace.Status(trace.StatusCode.ERROR, record.code))
        end = start + int(record.seconds * 1e9)
        if record.worker is not None:
            self._stages(record.worker, trace.set_span_in_context(span), end)
        span.end(end)
        return span.get_span_context()

    def _parent(self, parent: TraceParent | None) -> Any:
        """The context of the caller's span; an empty one makes a new trace."""
        trace, context = self._trace, self._context.Context()
        if parent is None:
            return context
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        remote = trace.SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
        return trace.set_span_in_context(trace.NonRecordingSpan(remote), context)

    def _stages(self, worker: WorkerRecord, context: Any, end: int) -> None:
        """Queue ends when the worker has the request, and the others follow, none beyond the answer."""
        begin = worker.received + self._epoch
        for name, seconds in worker.stages.items():
            length = int(seconds * 1e9)
            if length <= 0:
                continue
            start = begin - length if name == "queue" else begin
            if name != "queue":
                begin += length
            stage = self._tracer.start_span(name, context=context, start_time=min(start, end))
            stage.end(min(start + length, end))

    def _join_batch(self, worker: WorkerRecord, context: SpanContext | None) -> None:
        batch = self._batches.get(worker.batch)
        if batch is None:
            batch = _Batch(worker.batch, worker.requests, worker.requests, worker.received, worker.done)
            self._batches[worker.batch] = batch
        batch.to_come -= 1
        batch.photos += worker.photos
        batch.received, batch.done = min(batch.received, worker.received), max(batch.done, worker.done)
        if context is not None:
            batch.spans.append(context)
        if batch.to_come <= 0:
            self._end_batch(batch)

    def _end_batch(self, batch: _Batch) -> None:
        """One span for a batch, linked to those of its requests, which belong to traces of their own."""
        del self._batches[batch.id]
        if not batch.spans:
            return
        self._tracer.start_span(
            "batch",
            context=self._context.Context(),
            attributes={"unmask.batch": batch.id, "unmask.batch.requests": batch.requests, "unmask.photos": batch.photos},
            links=[self._trace.Link(context) for context in batch.spans],
            start_time=batch.received + self._epoch,
        ).end(batch.done + self._epoch)


def open_spans(settings: Settings, emit: Emit, environment: Mapping[str, str] = os.environ) -> Spans | None:
    """Spans that go to the receiver which the setting or OpenTelemetry's own variables name, None where neither does.

    Raises `UsageError` when the setting names one and the packages are not installed.
    """
    if not settings.otlp_endpoint and not any(environment.get(name) for name in _VARIABLES):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider, sampling
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        message = "spans need packages that are not installed; install unmask[otel]"
        if settings.otlp_endpoint:
            raise UsageError(f"--otlp-endpoint (UNMASK_OTLP_ENDPOINT): {message}") from None
        emit("spans", "warning", message=message)  # an operator of a cluster may set the variables for all that runs there
        return None
    ours = Resource({"service.name": "unmask", "service.version": version_of("unmask")})
    provider = TracerProvider(
        sampler=sampling.ALWAYS_ON,  # only what is to be traced becomes a span
        resource=Resource.create(dict(ours.merge(OTELResourceDetector().detect()).attributes)),
        shutdown_on_exit=False,
    )
    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [_Complaints(emit)], False
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=_traces_url(settings.otlp_endpoint))))
    return Spans(provider, settings.trace_share)


def _traces_url(base: str) -> str | None:
    """Where a receiver takes spans; None leaves it to the variables."""
    if not base or base.rstrip("/").endswith("/v1/traces"):
        return base or None
    return base.rstrip("/") + "/v1/traces"


class _Complaints(logging.Handler):
    """Tells the log what the exporter has to complain about, now and then: a receiver may be away for long."""

    def __init__(self, emit: Emit) -> None:
        super().__init__(logging.WARNING)
        self._emit, self._next = emit, 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if (now := time.monotonic()) >= self._next:
            self._next = now + COMPLAINT_SECONDS
            self._emit("spans", "warning", message=record.getMessage())


def _attributes(record: RequestRecord) -> dict[str, str | int]:
    """OpenTelemetry's semantic attributes for HTTP and RPC, and our own, which begin with `unmask.`."""
    worker = record.worker
    values: dict[str, str | int | None] = {
        "unmask.kind": record.route.kind,
        "unmask.version": record.version,
        "unmask.request_id": record.request_id,
        "unmask.code": record.code,
        "unmask.refused": True if record.refused else None,
        "error.type": record.code if record.server_failed else None,
    }
    if record.protocol == "grpc":
        values |= {
            "rpc.system.name": "grpc",
            "rpc.method": record.route.template,
            "rpc.response.status_code": record.status,
        }
    else:
        values |= {
            "http.request.method": record.method,
            "http.route": record.route.template or None,
            "http.response.status_code": int(record.status),
            "http.request.body.size": record.bytes,
            "url.scheme": "http",
        }
    if worker is not None:
        values |= {
            "unmask.photos": worker.photos,
            "unmask.photos.failed": worker.failed,
            "unmask.batch": worker.batch,
            "unmask.queue.depth": worker.depth,
        }
    return {name: value for name, value in values.items() if value is not None}
