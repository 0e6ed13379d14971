"""One request, as its client saw it and as the worker did, from the lines that both write."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from serve.records.routes import UNKNOWN, Route, grpc_route, rest_route

GRPC_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
REFUSED = frozenset({"503", "RESOURCE_EXHAUSTED"})
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_FIELDS = 11
# What the frontend answers by itself says no code; these are those that clients derive from its status.
_CODES = {
    **{"404": "model_not_found", "NOT_FOUND": "model_not_found", "408": "timeout", "DEADLINE_EXCEEDED": "timeout"},
    **{"413": "body_too_large", "503": "overloaded", "RESOURCE_EXHAUSTED": "overloaded", "507": "out_of_memory"},
    **{"499": "client_closed_request", "CANCELLED": "client_closed_request", "PERMISSION_DENIED": "token_refused"},
}


class TraceParent(NamedTuple):
    """What a `traceparent` says (W3C Trace Context): the trace, the caller's span in it, and whether it is recorded."""

    trace_id: str
    span_id: str
    sampled: bool


@dataclass(slots=True)
class RequestRecord:
    """One request that got an answer.

    protocol: rest or grpc. status: the HTTP status or the name of the gRPC one. seconds: from arrival to answer.
    arrived: ns of the monotonic clock. parent: the caller's span. worker: what the worker wrote, None where none has seen the
    request. trace_id: of its trace, which is the parent's or one that begins here.
    """

    protocol: str
    status: str
    route: Route
    method: str
    arrived: int
    seconds: float
    version: str
    request_id: str | None
    parent: TraceParent | None
    bytes: int | None
    worker: WorkerRecord | None = None
    trace_id: str | None = None

    @property
    def refused(self) -> bool:
        """Whether it was turned away before a worker saw it."""
        return self.worker is None and self.status in REFUSED

    @property
    def failed(self) -> bool:
        """Whether the client got something else than a verdict; over gRPC the body has the worker's status."""
        if self.worker is not None and self.worker.status >= 400:
            return True
        return self.status != "OK" if self.protocol == "grpc" else self.status >= "400"

    @property
    def server_failed(self) -> bool:
        """Whether the server and not the request is the reason of the failure."""
        if self.protocol == "rest":
            return self.status >= "500"
        ours = ("UNKNOWN", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
        return self.status in ours or (self.worker is not None and self.worker.status >= 500)

    @property
    def code(self) -> str | None:
        """The error code, None for a success."""
        if self.worker is not None and self.worker.code:
            return self.worker.code
        return _CODES.get(self.status, "server_error" if self.server_failed else "bad_request") if self.failed else None


@dataclass(slots=True)
class WorkerRecord:
    """What a worker wrote on a request. queued, received and done are ns of the monotonic clock; stages are seconds."""

    job: str
    request_id: str
    trace: str | None
    version: str
    kind: str
    status: int
    code: str | None
    photos: int
    failed: int
    queued: int | None
    depth: int | None
    received: int
    done: int
    batch: str
    requests: int
    stages: dict[str, float]


def read_worker(line: bytes) -> WorkerRecord:
    """A worker's line. Raises `ValueError` or `TypeError` when it is none."""
    values = json.loads(line)
    if type(values) is not dict:
        raise ValueError("a worker writes JSON objects")
    record = WorkerRecord(**values)
    if not (type(record.job) is str and type(record.status) is int and type(record.stages) is dict):
        raise TypeError("a worker's record has values of other types")
    return record


class Join:
    """Finds the worker's record of each line of the frontend's, which comes after it.

    A line has eleven fields with a tab between them: the address that took the request or `grpc`, status, nanoseconds from
    arrival to answer, arrival in ns of the monotonic clock, job id, x-request-id, traceparent, content-length, version,
    method and URI. `-` stands for what is absent or not valid.

    versions: those served. rest_port: where requests come; what comes to other ports is not counted.
    limit: the most records that wait for their line. The oldest is given up first: its request got no answer, or its line
    was lost.
    """

    def __init__(self, versions: Collection[str], rest_port: int, *, limit: int = 20_000, seconds: float = 120.0) -> None:
        self._versions, self._rest = frozenset(versions), f":{rest_port}"
        self._limit, self._patience = limit, int(seconds * 1e9)
        self._waiting: OrderedDict[str, WorkerRecord] = OrderedDict()

    def add(self, record: WorkerRecord) -> int:
        """Keep a worker's record. Returns how many others were given up for it."""
        self._waiting[record.job] = record
        if len(self._waiting) <= self._limit:
            return 0
        self._waiting.popitem(last=False)
        return 1

    def expire(self, now: int) -> int:
        """Give up what has waited too long at `now`, ns of the monotonic clock. Returns how many."""
        gone = 0
        while self._waiting and now - next(iter(self._waiting.values())).done > self._patience:
            self._waiting.popitem(last=False)
            gone += 1
        return gone

    def record(self, line: bytes, default: str) -> RequestRecord | None:
        """The record of a request from the frontend's line, with its worker's part; None for what is not counted.

        default: the version that is the default one. Raises `ValueError` when it is no such line.
        """
        fields = line.decode("utf-8", "replace").split("\t", _FIELDS - 1)
        if len(fields) != _FIELDS:
            raise ValueError("no line of the frontend's")
        listener, code, duration, arrived, job, request_id, trace, length, asked, method, uri = fields
        if listener == "grpc":
            protocol, status, route = "grpc", GRPC_CODES[int(code)], grpc_route(uri)
        elif listener.endswith(self._rest):
            protocol, status, route = "rest", str(int(code)), rest_route(method, uri.partition("?")[0])
        elif listener.startswith("/"):
            return None  # another port: management, TorchServe's own metrics
        else:
            raise ValueError("no address took this request")
        worker = self._waiting.pop(job, None)
        if route is None:
            return None
        if trace == "-" and worker is not None and worker.trace:
            trace = worker.trace
        parent = read_traceparent(trace) if trace != "-" else None
        version = route.version or (asked if asked != "-" else worker.version if worker else default)
        if status == "NOT_FOUND" and asked == "-":
            version = UNKNOWN  # of another model, which the line does not name
        return RequestRecord(
            protocol,
            status,
            route,
            method,
            int(arrived),
            int(duration) / 1e9,
            version if version in self._versions else UNKNOWN,
            request_id if request_id != "-" else worker.request_id if worker else job,
            parent,
            int(length) if length != "-" else None,
            worker,
            parent.trace_id if parent else None,
        )


def as_fields(record: RequestRecord) -> dict[str, Any]:
    """What a log line says of a record: no photo, no file name and no path, which may have either."""
    fields: dict[str, Any] = {
        "protocol": record.protocol,
        "kind": record.route.kind,
        "version": record.version,
        "status": record.status,
        "code": record.code,
        "seconds": round(record.seconds, 6),
        "bytes": record.bytes,
        "request_id": record.request_id,
        "trace_id": record.trace_id,
    }
    if worker := record.worker:
        fields |= {
            "photos": worker.photos,
            "failed": worker.failed,
            "depth": worker.depth,
            "batch": worker.batch,
            "stages": {name: round(seconds, 6) for name, seconds in worker.stages.items() if seconds},
        }
    return {name: value for name, value in fields.items() if value is not None}


def read_traceparent(text: str) -> TraceParent | None:
    """The parts of a traceparent, None where it is none."""
    found = _TRACEPARENT.fullmatch(text)
    return TraceParent(found[1], found[2], bool(int(found[3], 16) & 1)) if found else None
