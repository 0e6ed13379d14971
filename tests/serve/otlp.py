"""A receiver of spans as an OpenTelemetry collector is: OTLP over HTTP in protobuf."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from tests.waiting import awaited


@dataclass(frozen=True)
class Received:
    """One span. Ids are hexadecimal, times ns since the epoch; resource: what all spans of its sender have."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    resource: dict[str, Any]


class Receiver:
    """Keeps the spans that are sent to `url`."""

    def __init__(self) -> None:
        self.spans: list[Received] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                right = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
                if right:
                    packed = self.headers.get("Content-Encoding") == "gzip"
                    receiver.take(ExportTraceServiceRequest.FromString(gzip.decompress(body) if packed else body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200 if right else 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Not on the test's output."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keep what was sent."""
        for group in request.resource_spans:
            resource = _values(group.resource.attributes)
            for span in (span for scope in group.scope_spans for span in scope.spans):
                self.spans.append(
                    Received(
                        span.name,
                        span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        span.status.code == span.status.STATUS_CODE_ERROR,
                        _values(span.attributes),
                        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                        resource,
                    )
                )

    def awaited(self, wanted: Callable[[Received], bool], count: int = 1) -> list[Received]:
        """So many spans of this kind, as soon as they have come."""
        found = awaited(
            lambda: [span for span in list(self.spans) if wanted(span)],
            lambda spans: len(spans) >= count,
            hint=lambda: [span.name for span in self.spans],
        )
        return list(found)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
