"""What happened to a request, as a real server tells it: in the answer, the metrics, the log and the spans."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import grpc
import httpx
import pytest

from serve.client.grpc_stubs import load
from tests.serve.otlp import Received, Receiver
from tests.serve.running import RunningServer
from tests.waiting import awaited

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{CALLER}-01"
SAMPLE = re.compile(r"unmask_requests_total\{(.*)\} (\S+)")
JPEG = {"Content-Type": "image/jpeg"}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """What the server sends its spans to."""
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture(scope="module")
def recorded(artifacts: Any, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[RunningServer]:
    """A server of one worker with a short queue, which logs every request."""
    flags = ("--workers", "1", "--queue-size", "4", "--access-log-share", "1", "--trace-share", "0")
    flags += ("--otlp-endpoint", receiver.url)
    with mock.patch.dict(
        os.environ, OTEL_BSP_SCHEDULE_DELAY="100"
    ):  # milliseconds; spans are sent every five seconds otherwise
        running = RunningServer(artifacts, tmp_path_factory.mktemp("recorded"), *flags)
    try:
        yield running.await_ready()
    finally:
        running.stop()


def counted(server: RunningServer) -> Counter[tuple[str, str, str]]:
    """`unmask_requests_total` by protocol, kind and code, as far as it is not 0."""
    found: Counter[tuple[str, str, str]] = Counter()
    for line in server.probe("metrics")[1].splitlines():
        if sample := SAMPLE.fullmatch(line):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', sample[1]))
            found[labels["protocol"], labels["kind"], labels["code"]] += int(float(sample[2]))
    return +found


def requests_of_torchserve(server: RunningServer) -> int:
    """TorchServe's own count of the predictions that it was asked for, the warm-up's too."""
    url = f"http://127.0.0.1:{server.record.ports['metrics_port']}/metrics"
    page = httpx.get(url, timeout=30, trust_env=False).text
    return sum(int(float(line.split()[-1])) for line in page.splitlines() if line.startswith("ts_inference_requests_total{"))


def logged(server: RunningServer, request_id: str) -> dict[str, Any]:
    """The log's line on a request."""
    (line,) = awaited(lambda: [line for line in server.events("request") if line["request_id"] == request_id])
    return line


class Calls:
    """Calls over gRPC as clients of TorchServe make them."""

    def __init__(self, server: RunningServer) -> None:
        self._messages, services = load()
        self._channel = grpc.insecure_channel(server.record.grpc_target)
        self._stub = services.InferenceAPIsServiceStub(self._channel)

    def predict(self, data: bytes, **sent: Any) -> tuple[str, dict[str, Any]]:
        """Name of the status, and the verdict. sent: metadata and inputs."""
        inputs = {"data": data} | {name: value.encode() for name, value in sent.get("inputs", {}).items()}
        request = self._messages.PredictionsRequest(model_name="detector", input=inputs)
        try:
            reply = self._stub.Predictions(request, metadata=tuple(sent.get("metadata", {}).items()), timeout=60)
        except grpc.RpcError as error:
            return error.code().name, {}
        return "OK", json.loads(reply.prediction)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()


@pytest.fixture
def calls(recorded: RunningServer) -> Iterator[Calls]:
    """A client of its own."""
    calls = Calls(recorded)
    yield calls
    calls.close()


def test_at_ready_nothing_is_counted(recorded: RunningServer) -> None:
    assert requests_of_torchserve(recorded) > 0  # the warm-up
    assert not counted(recorded)
    page = recorded.probe("metrics")[1]
    assert 'unmask_requests_total{code="503",kind="predict",protocol="rest",version="1.0"} 0' in page


def test_a_request_over_rest_has_its_id_and_trace_everywhere(
    recorded: RunningServer, receiver: Receiver, photos: list[bytes]
) -> None:
    answer = recorded.post(content=photos[0], headers=JPEG | {"x-request-id": "over-rest-0001", "traceparent": TRACEPARENT})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "over-rest-0001"
    assert answer.headers["traceparent"] == TRACEPARENT
    line = logged(recorded, "over-rest-0001")
    assert (line["protocol"], line["kind"], line["version"], line["status"]) == ("rest", "predict", "1.0", "200")
    assert (line["trace_id"], line["bytes"], line["photos"], line["failed"]) == (TRACE, len(photos[0]), 1, 0)
    assert 0 < sum(line["stages"].values()) < line["seconds"]
    assert set(line["stages"]) == {"queue", "read", "decode", "inference", "postprocess"}
    spans_are_right(receiver, "over-rest-0001", "POST /predictions/{model}", set(line["stages"]))


def test_a_call_over_grpc_has_its_id_and_trace_everywhere(
    recorded: RunningServer, receiver: Receiver, photos: list[bytes], calls: Calls
) -> None:
    code, verdict = calls.predict(
        photos[0],
        metadata={"x-request-id": "over-grpc-0001", "traceparent": TRACEPARENT},
        inputs={"request_id": "over-grpc-0001", "traceparent": TRACEPARENT},
    )
    assert (code, verdict["request_id"]) == ("OK", "over-grpc-0001")
    line = logged(recorded, "over-grpc-0001")
    assert (line["protocol"], line["kind"], line["status"], line["trace_id"]) == ("grpc", "predict", "OK", TRACE)
    name = "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    spans_are_right(receiver, "over-grpc-0001", name, set(line["stages"]))


def spans_are_right(receiver: Receiver, request_id: str, name: str, stages: set[str]) -> None:
    """The spans of a request, below its caller's and above its stages, with its batch linked to it."""
    (request,) = receiver.awaited(lambda span: span.attributes.get("unmask.request_id") == request_id)
    assert (request.name, request.kind, request.failed) == (name, "SERVER", False)
    assert (request.trace_id, request.parent_id) == (TRACE, CALLER)
    assert abs(request.start - time.time_ns()) < 600e9

    def below(span: Received) -> bool:
        return span.parent_id == request.span_id

    children = receiver.awaited(below, len(stages))
    assert {span.name for span in children} == stages
    # The queue begins with TorchServe's job, a moment after the request's arrival by the same clock.
    assert all(request.start <= span.start <= span.end <= request.end for span in children)
    (batch,) = receiver.awaited(lambda span: (TRACE, request.span_id) in span.links)
    assert batch.name == "batch"
    assert batch.attributes["unmask.batch"] == request.attributes["unmask.batch"]


def test_an_id_that_is_not_valid_is_replaced_by_the_servers(
    recorded: RunningServer, photos: list[bytes], calls: Calls
) -> None:
    for bad in ("short", "with space 1", "a" * 129, "x-request-<id>"):
        answer = recorded.post(content=photos[0], headers=JPEG | {"x-request-id": bad, "traceparent": "00-0-0-01"})
        given = answer.headers["x-request-id"]
        assert re.fullmatch("[0-9a-f-]{36}", given)
        assert answer.json()["request_id"] == given
        assert "traceparent" not in answer.headers
        assert "trace_id" not in logged(recorded, given)
        _, verdict = calls.predict(photos[0], metadata={"x-request-id": bad}, inputs={"request_id": bad})
        assert re.fullmatch("[0-9a-f-]{36}", verdict["request_id"])


def test_a_failure_is_logged_with_its_code_and_no_file_name(recorded: RunningServer, calls: Calls) -> None:
    answer = recorded.post(files={"data": ("me.jpg", b"not a photo", "image/jpeg")}, headers={"x-request-id": "a-bad-photo"})
    assert answer.status_code == 415
    line = logged(recorded, "a-bad-photo")
    assert (line["status"], line["code"], line["level"]) == ("415", "unsupported_format", "info")
    metadata, inputs = {"x-request-id": "a-bad-call-1"}, {"request_id": "a-bad-call-1"}
    code, verdict = calls.predict(b"not a photo", metadata=metadata, inputs=inputs)
    assert (code, verdict["status"]) == ("OK", 415)
    assert logged(recorded, "a-bad-call-1")["code"] == "unsupported_format"
    answer = recorded.post("/9.9", content=b"x", headers={"x-request-id": "no-such-version"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (404, "no-such-version")
    assert logged(recorded, "no-such-version")["code"] == "model_not_found"
    assert "me.jpg" not in recorded.output


def test_a_path_is_counted_under_its_kind_and_an_operators_question_not_at_all(
    recorded: RunningServer, photos: list[bytes]
) -> None:
    base = httpx.URL(recorded.record.rest_url)
    b64 = base64.b64encode(photos[0]).decode()
    v2 = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [b64]}
    before = counted(recorded)
    with httpx.Client(base_url=base.copy_with(path="/"), timeout=60, trust_env=False) as http:
        assert http.post("/explanations/detector", content=photos[0], headers=JPEG).status_code == 200
        assert http.post("/v1/models/detector:predict", json={"instances": [{"b64": b64}]}).status_code == 200
        assert http.post("/v2/models/detector/infer", json={"inputs": [v2]}).status_code == 200
        assert http.get("/robots.txt").status_code == 404
        assert http.get("/ping").status_code == 200
        assert http.get("/v2/health/ready").status_code == 200
        assert http.options("/predictions/detector").status_code == 200
    expected = {("explain", "200"), ("v1", "200"), ("v2", "200"), ("other", "404")}
    assert awaited(lambda: counted(recorded) - before, lambda found: found.total() >= 4) == {
        ("rest", kind, code): 1 for kind, code in expected
    }


def test_in_an_overload_each_answer_is_counted_as_its_client_got_it(
    recorded: RunningServer, photos: list[bytes], calls: Calls
) -> None:
    awaited(lambda: counted(recorded))
    before, asked = counted(recorded), requests_of_torchserve(recorded)
    seen: Counter[tuple[str, str, str]] = Counter()

    http = httpx.Client(timeout=60, trust_env=False, headers=JPEG)

    def rest(number: int) -> tuple[str, str, str]:
        return "rest", "predict", str(http.post(recorded.record.rest_url, content=photos[number % 50]).status_code)

    def call(number: int) -> tuple[str, str, str]:
        return "grpc", "predict", calls.predict(photos[number % 50])[0]

    while not {"503", "RESOURCE_EXHAUSTED"} <= {code for *_, code in seen}:
        with ThreadPoolExecutor(32) as pool:
            seen.update(pool.map(lambda number: (rest if number % 2 else call)(number), range(200)))
    http.close()
    assert awaited(lambda: counted(recorded) - before, lambda found: found.total() >= seen.total()) == seen
    assert requests_of_torchserve(recorded) - asked == seen.total()
    refused = sum(count for (_, _, code), count in seen.items() if code in ("503", "RESOURCE_EXHAUSTED"))
    durations = [f'unmask_refused_duration_seconds_count{{protocol="{each}",version="1.0"}}' for each in ("rest", "grpc")]
    assert sum(recorded.metric(sample) for sample in durations) == refused
    for source in ("frontend", "worker"):
        assert recorded.metric(f'unmask_records_lost_total{{source="{source}"}}') == 0
