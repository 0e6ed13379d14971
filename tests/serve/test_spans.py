"""Spans of requests, stages and batches, as a receiver gets them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detector.errors import UsageError
from serve.records.spans import TRACED_PER_SECOND, open_spans
from serve.settings import Settings
from tests.serve.otlp import Receiver
from tests.serve.test_records import TRACE, TRACEPARENT, Served, access_line, grpc_line, worker_line


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """What spans are sent to."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def begin(tmp_path: Path, receiver: Receiver) -> Callable[..., Served]:
    """Records that send spans; to close them sends what waits."""

    def start(**settings: Any) -> Served:
        return Served(tmp_path, **{"otlp_endpoint": receiver.url, "trace_share": 0.0, "access_log_share": 0.0} | settings)

    return start


def test_a_request_is_a_span_below_its_callers_with_its_stages_below_it(
    begin: Callable[..., Served], receiver: Receiver
) -> None:
    served = begin()
    served.worker(worker_line("job-1", request_id="outside-1", photos=2, failed=1, batch="17-9"))
    served.frontend(
        access_line(job="job-1", trace=TRACEPARENT, request_id="outside-1", uri="/predictions/detector/1.0?a=me.jpg")
    )
    before = time.time_ns()
    served.close()
    spans = {span.name: span for span in receiver.spans}
    assert set(spans) == {
        "POST /predictions/{model}/{version}",
        *("queue", "read", "decode", "inference", "postprocess"),
        "batch",
    }
    request = spans["POST /predictions/{model}/{version}"]
    assert (request.kind, request.trace_id, request.parent_id) == ("SERVER", TRACE, "00f067aa0ba902b7")
    assert request.end - request.start == 7_500_000
    assert abs(request.start - before) < 60e9
    assert not request.failed
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/predictions/{model}/{version}",
        "http.response.status_code": 200,
        "http.request.body.size": 10412,
        "url.scheme": "http",
        "unmask.kind": "predict",
        "unmask.version": "1.0",
        "unmask.request_id": "outside-1",
        "unmask.photos": 2,
        "unmask.photos.failed": 1,
        "unmask.batch": "17-9",
        "unmask.queue.depth": 3,
    }
    assert request.resource["service.name"] == "unmask"
    assert request.resource["service.version"]
    for name, length in (("queue", 1_000_000), ("decode", 2_000_000), ("inference", 3_000_000)):
        assert (spans[name].trace_id, spans[name].parent_id) == (TRACE, request.span_id)
        assert spans[name].end - spans[name].start == length
        assert spans[name].end <= request.end
    assert spans["queue"].end == spans["read"].start
    assert spans["decode"].end == spans["inference"].start


def test_a_batch_is_a_span_of_its_own_linked_to_those_of_its_requests(
    begin: Callable[..., Served], receiver: Receiver
) -> None:
    served = begin()
    others = [TRACEPARENT, TRACEPARENT.replace(TRACE, "c" * 32), TRACEPARENT.replace(TRACE, "d" * 32)[:-2] + "00"]
    for number, trace in enumerate(others):
        served.worker(worker_line(f"job-{number}", batch="17-2", requests=3))
        served.frontend(access_line(job=f"job-{number}", trace=trace))
    served.close()
    requests = [span for span in receiver.spans if span.kind == "SERVER"]
    (batch,) = [span for span in receiver.spans if span.name == "batch"]
    assert {span.trace_id for span in requests} == {TRACE, "c" * 32}  # the third caller does not record its trace
    assert set(batch.links) == {(span.trace_id, span.span_id) for span in requests}
    assert batch.trace_id not in {TRACE, "c" * 32}
    assert batch.parent_id == ""
    assert (batch.attributes["unmask.batch.requests"], batch.attributes["unmask.photos"]) == (3, 3)


def test_refusals_and_failures_are_spans_that_failed(begin: Callable[..., Served], receiver: Receiver) -> None:
    served = begin()
    served.frontend(
        access_line(code=503, trace=TRACEPARENT),
        grpc_line("INTERNAL", trace=TRACEPARENT),
        access_line(code=404, trace=TRACEPARENT, method="GET", uri="/me.jpg"),
    )
    served.close()
    spans = {span.name: span for span in receiver.spans}
    refused = spans["POST /predictions/{model}"]
    assert (refused.failed, refused.attributes["unmask.refused"], refused.attributes["error.type"]) == (
        True,
        True,
        "overloaded",
    )
    call = spans["org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"]
    assert call.failed
    assert call.attributes["rpc.system.name"] == "grpc"
    assert call.attributes["rpc.response.status_code"] == "INTERNAL"
    assert not spans["GET"].failed  # the client's fault, and no path that may name a file
    assert "me.jpg" not in repr(receiver.spans)


def test_requests_that_no_caller_traces_are_traced_by_the_share_that_was_set(
    begin: Callable[..., Served], receiver: Receiver
) -> None:
    served = begin(trace_share=0.5, access_log_share=0.5)
    for number in range(100):
        served.worker(worker_line(f"request-{number}", batch=f"17-{number}"))
        served.frontend(access_line(job=f"request-{number}"))
    served.close()
    traced = {span.attributes["unmask.request_id"]: span for span in receiver.spans if span.kind == "SERVER"}
    assert 25 < len(traced) < 75
    # The same ones that are logged, under the id that the log gives.
    assert {line["request_id"]: line["trace_id"] for line in served.log} == {
        name: span.trace_id for name, span in traced.items()
    }
    assert all(span.parent_id == "" for span in traced.values())


def test_of_a_flood_of_traced_requests_all_are_counted_and_some_are_spans(
    begin: Callable[..., Served], receiver: Receiver
) -> None:
    served = begin()
    began = time.monotonic()
    for _ in range(30):
        served.frontend(*(access_line(code=503, trace=TRACEPARENT) for _ in range(100)))
        served.page()
    seconds = time.monotonic() - began
    assert served.requests() == {("rest", "predict", "1.0", "503"): 3000}
    served.close()
    assert 0 < len(receiver.spans) <= TRACED_PER_SECOND * (seconds + 2)


def test_a_receiver_that_is_away_is_one_line_and_delays_no_stop(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.close()
    served = Served(tmp_path, otlp_endpoint=receiver.url, trace_share=1.0, access_log_share=0.0)
    served.frontend(access_line(code=404, uri="/a"), access_line(code=404, uri="/b"))
    assert served.requests() == {("rest", "other", "unknown", "404"): 2}
    began = time.monotonic()
    served.close()
    assert time.monotonic() - began < 30  # its exporter would try for as long as it may
    complaints = [line for line in served.log if line["event"] == "spans"]
    assert len(complaints) == 1
    assert complaints[0]["level"] == "warning"


def test_without_a_receiver_nothing_of_opentelemetry_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from serve.records.spans import open_spans; from serve.settings import Settings\n"
        "assert open_spans(Settings(), print, {}) is None\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_missing_packages_are_an_error_where_the_setting_asks_for_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    lines: list[dict[str, Any]] = []

    def emit(event: str, level: str, **fields: Any) -> None:
        lines.append({"event": event, "level": level, **fields})

    with pytest.raises(UsageError, match=r"--otlp-endpoint .*unmask\[otel\]"):
        open_spans(Settings(otlp_endpoint="http://127.0.0.1:4318"), emit, {})
    assert open_spans(Settings(), emit, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}) is None
    assert [(line["event"], line["level"]) for line in lines] == [("spans", "warning")]
