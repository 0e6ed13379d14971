"""Lines of the frontend and the workers become records: counted once each, joined, logged; nothing in a pipe breaks this."""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from serve.records import Records
from serve.records.access_log import ALIKE_PER_SECOND, AccessLog
from serve.records.pipes import LINE_BYTES, Pipe
from serve.records.record import GRPC_CODES, Join, read_worker
from serve.records.routes import grpc_route, rest_route
from serve.settings import Settings
from serve.torchserve.render import Layout

PREDICTIONS = "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def access_line(
    *,
    listener: str = "/127.0.0.1:8080",
    code: int = 200,
    job: str = "",
    request_id: str = "-",
    trace: str = "-",
    version: str = "-",
    method: str = "POST",
    uri: str = "/predictions/detector",
) -> bytes:
    """What the frontend writes on a request of 7.5 ms that arrives now."""
    fields = (
        listener,
        code,
        7_500_000,
        time.monotonic_ns(),
        job or uuid.uuid4(),
        request_id,
        trace,
        10412,
        version,
        method,
        uri,
    )
    return "\t".join(map(str, fields)).encode() + b"\n"


def grpc_line(code: str, **more: Any) -> bytes:
    """What it writes on a call."""
    return access_line(**{"listener": "grpc", "code": GRPC_CODES.index(code), "method": "gRPC", "uri": PREDICTIONS} | more)


def worker_line(job: str, **more: Any) -> bytes:
    """What a worker writes on the request before it answers."""
    now = time.monotonic_ns()
    stages = {"queue": 0.001, "read": 0.0001, "decode": 0.002, "inference": 0.003, "postprocess": 0.0005, "explain": 0.0}
    record = {"job": job, "request_id": job, "trace": None, "version": "1.0", "kind": "predict", "status": 200, "code": None}
    record |= {"photos": 1, "failed": 0, "queued": now - 1_000_000, "depth": 3, "received": now, "done": now + 6_000_000}
    return json.dumps(record | {"batch": "17-1", "requests": 1, "stages": stages} | more).encode() + b"\n"


class Served:
    """Records without a server: the test writes what the frontend and the workers would."""

    def __init__(self, state: Path, **settings: Any) -> None:
        self.log: list[dict[str, Any]] = []
        self.default = "1.0"
        layout = Layout(state, state)
        layout.make()
        self.records = Records(Settings(**settings), layout, ("1.0", "2.0"), lambda: self.default, self._emit)
        self.records.start()
        self.records.begin()
        self._access, self._worker = os.open(layout.access, os.O_WRONLY), os.open(layout.requests, os.O_WRONLY)
        self._registry = CollectorRegistry()
        self._registry.register(self.records.collector)

    def _emit(self, event: str, level: str, **fields: Any) -> None:
        self.log.append({"event": event, "level": level, **fields})

    def frontend(self, *lines: bytes) -> None:
        """Write as the frontend does."""
        os.write(self._access, b"".join(lines))

    def worker(self, *lines: bytes) -> None:
        """Write as a worker does."""
        os.write(self._worker, b"".join(lines))

    def page(self) -> str:
        """A scrape, in the form that has exemplars."""
        return generate_latest(self._registry).decode()

    def value(self, sample: str) -> float:
        """The value of a sample; it has to be there."""
        line = next(line for line in self.page().splitlines() if line.startswith(sample + " "))
        return float(line.partition(" # ")[0].rpartition(" ")[2])

    def requests(self) -> dict[tuple[str, str, str, str], float]:
        """What has been counted, by protocol, kind, version and code."""
        families = {family.name: family for family in self._registry.collect()}
        names = ("protocol", "kind", "version", "code")
        samples = [each for each in families["unmask_requests"].samples if each.name.endswith("_total") and each.value]
        return {tuple(each.labels[name] for name in names): each.value for each in samples}

    def close(self) -> None:
        """End it all."""
        os.close(self._access)
        os.close(self._worker)
        self.records.close()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start records, with these settings."""
    started: list[Served] = []

    def start(**settings: Any) -> Served:
        started.append(Served(tmp_path / str(len(started)), **settings))
        return started[-1]

    yield start
    for each in started:
        each.close()


def test_each_request_is_counted_once_by_what_its_client_got(begin: Callable[..., Served]) -> None:
    served = begin()
    job, call = str(uuid.uuid4()), str(uuid.uuid4())
    served.worker(worker_line(job), worker_line(call, status=422, code="truncated_image", failed=1))
    served.frontend(
        access_line(job=job),
        access_line(code=503, uri="/predictions/detector/2.0?use_calib=0"),
        grpc_line("OK", job=call),
        grpc_line("RESOURCE_EXHAUSTED", version="2.0"),
        access_line(code=404, uri="/no/such/path"),
        access_line(code=404, uri="/predictions/detector/9.9"),
        grpc_line("NOT_FOUND"),
    )
    assert served.requests() == {
        ("rest", "predict", "1.0", "200"): 1,
        ("rest", "predict", "2.0", "503"): 1,
        ("grpc", "predict", "1.0", "OK"): 1,
        ("grpc", "predict", "2.0", "RESOURCE_EXHAUSTED"): 1,
        ("rest", "other", "unknown", "404"): 1,
        ("rest", "predict", "unknown", "404"): 1,
        ("grpc", "predict", "unknown", "NOT_FOUND"): 1,
    }
    assert served.value('unmask_request_duration_seconds_count{kind="predict",protocol="rest",version="1.0"}') == 1
    assert served.value('unmask_request_duration_seconds_sum{kind="predict",protocol="rest",version="1.0"}') == 0.0075
    assert served.value('unmask_refused_duration_seconds_count{protocol="rest",version="2.0"}') == 1
    assert served.value('unmask_queue_depth_bucket{le="5.0",version="1.0"}') == 2
    assert served.value('unmask_queue_depth_bucket{le="50.0",version="2.0"}') == 0
    assert served.value('unmask_queue_depth_bucket{le="100.0",version="2.0"}') == 2  # refused where the queue ends


def test_known_series_are_there_before_the_first_request(begin: Callable[..., Served]) -> None:
    served = begin()
    for version in ("1.0", "2.0"):
        for kind in ("predict", "explain", "v1", "v2"):
            labels = f'kind="{kind}",protocol="rest",version="{version}"'
            assert served.value(f"unmask_request_duration_seconds_count{{{labels}}}") == 0
            assert served.value(f'unmask_requests_total{{code="503",{labels}}}') == 0
        assert served.value(f'unmask_requests_total{{code="INTERNAL",kind="v2",protocol="grpc",version="{version}"}}') == 0
    assert served.value('unmask_records_lost_total{source="frontend"}') == 0


def test_a_request_that_names_no_version_is_counted_for_the_default_one_of_that_time(begin: Callable[..., Served]) -> None:
    served = begin()
    served.frontend(access_line(code=503))
    assert served.requests() == {("rest", "predict", "1.0", "503"): 1}
    served.default = "2.0"
    served.frontend(access_line(code=503))
    assert served.requests() == {("rest", "predict", "1.0", "503"): 1, ("rest", "predict", "2.0", "503"): 1}


def test_what_arrived_before_the_count_began_is_not_counted(tmp_path: Path) -> None:
    served = Served(tmp_path)
    early = access_line(code=503)
    served.records.begin()
    served.frontend(early, access_line(code=404))
    assert served.requests() == {("rest", "predict", "1.0", "404"): 1}
    served.close()


def test_health_and_management_are_not_counted(begin: Callable[..., Served]) -> None:
    served = begin()
    served.frontend(
        access_line(method="GET", uri="/ping"),
        access_line(method="GET", uri="/v2/health/ready"),
        access_line(method="OPTIONS", uri="/predictions/detector"),
        access_line(listener="/127.0.0.1:8081", method="GET", uri="/models/detector/all"),
        grpc_line("OK", uri="org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"),
        grpc_line("OK", uri="org.pytorch.serve.grpc.management.ManagementAPIsService/DescribeModel"),
    )
    assert served.requests() == {}
    assert not served.log


def test_garbage_floods_and_halves_of_lines_lose_nothing_else(begin: Callable[..., Served]) -> None:
    served = begin()
    line, job = access_line(code=503), str(uuid.uuid4())
    served.frontend(b"\x00\xff\xfe nothing\n", b"\t" * 10 + b"\n", line[:30])
    assert served.requests() == {}
    served.frontend(line[30:], b"rest\t" + b"x" * (3 * LINE_BYTES))
    served.page()
    served.frontend(b"x" * LINE_BYTES + b"\n", access_line(job=job), access_line(code=999))
    served.worker(b"[]\n{}\n{\n", b"[" * 3000 + b"\n", worker_line(job, extra=1), worker_line(job, stages=None))
    assert served.requests() == {
        ("rest", "predict", "1.0", "503"): 1,
        ("rest", "predict", "1.0", "200"): 1,
        ("rest", "predict", "1.0", "999"): 1,
    }
    assert served.value('unmask_records_lost_total{source="frontend"}') == 3
    assert served.value('unmask_records_lost_total{source="worker"}') == 7  # six lines, and the one that was answered without


def test_a_writer_is_never_kept_waiting_to_open_and_a_full_pipe_is_read_whole(tmp_path: Path) -> None:
    pipe = Pipe(tmp_path / "pipe")
    writer = os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += os.write(writer, b"0123456789abcde\n")
    assert len(pipe.lines()) == written // 16
    os.close(writer)
    assert pipe.lines() == []  # no end of file
    pipe.close()
    assert not (tmp_path / "pipe").exists()


def test_worker_records_whose_line_never_comes_are_given_up_and_counted() -> None:
    join = Join(("1.0",), 8080, limit=2, seconds=60)
    records = [read_worker(worker_line(str(number), done=number * 10**9)) for number in range(3)]
    assert [join.add(record) for record in records] == [0, 0, 1]
    assert join.expire(61 * 10**9) == 0
    assert join.expire(62 * 10**9) == 1
    assert join.expire(100 * 10**9) == 1


def test_failures_are_logged_with_their_reason_and_successes_by_a_share(begin: Callable[..., Served]) -> None:
    served = begin(access_log_share=0.25)
    job = str(uuid.uuid4())
    served.worker(worker_line(job, status=422, code="truncated_image", photos=2, failed=2))
    served.frontend(
        access_line(job=job, code=422, request_id="from-outside-1", trace=TRACEPARENT, uri="/predictions/detector?name=me.jpg")
    )
    served.page()
    (line,) = served.log
    assert (line["event"], line["level"], line["status"], line["code"]) == ("request", "info", "422", "truncated_image")
    assert (line["request_id"], line["trace_id"], line["bytes"]) == ("from-outside-1", TRACE, 10412)
    assert (line["photos"], line["failed"], line["stages"]["decode"]) == (2, 2, 0.002)
    assert "me.jpg" not in json.dumps(line)
    served.log.clear()
    ids = [f"request-{number:05d}" for number in range(1000)]
    for each in ids:
        served.worker(worker_line(each))
        served.frontend(access_line(job=each, request_id=each))
    served.page()
    logged = [line["request_id"] for line in served.log]
    assert 180 < len(logged) < 320
    served.frontend(*(access_line(request_id=each) for each in logged))
    served.page()
    assert [line["request_id"] for line in served.log] == 2 * logged  # the same ones wherever they are seen


def test_an_overload_is_a_hundred_lines_a_second_and_one_that_counts_the_rest() -> None:
    lines: list[dict[str, Any]] = []
    now = [10.0]
    log = AccessLog(lambda event, level, **fields: lines.append(fields | {"level": level}), 0.0, clock=lambda: now[0])
    join = Join(("1.0",), 8080)

    def refuse(count: int, **more: Any) -> None:
        for _ in range(count):
            record = join.record(access_line(code=503, **more).rstrip(b"\n"), "1.0")
            assert record is not None
            log.write(record)

    refuse(5000)
    refuse(3, uri="/v1/models/detector:predict")  # not the same
    assert len(lines) == ALIKE_PER_SECOND + 3
    now[0] = 11.0
    log.flush()
    assert lines[-1]["repeated"] == 5000 - ALIKE_PER_SECOND
    assert lines[-1]["level"] == "warning"
    refuse(1)
    log.flush(over=True)
    assert len(lines) == ALIKE_PER_SECOND + 5
    assert sum(line.get("repeated", 1) for line in lines) == 5004


@pytest.mark.parametrize(
    ("path", "kind", "version"),
    [
        ("/predictions/detector", "predict", ""),
        ("/predictions/detector/", "predict", ""),
        ("/predictions/detector/2.0", "predict", "2.0"),
        ("/predictions/detector/2.0/more", "predict", "2.0"),
        ("/predictions/detector/2%2E0", "predict", "2.0"),
        ("/explanations/detector/1.0", "explain", "1.0"),
        ("/invocations", "predict", ""),
        ("/models/detector/invoke", "predict", ""),
        ("/detector/predict", "predict", ""),
        ("/detector/1.0/predict", "predict", "1.0"),
        ("/v1/models/detector:predict", "v1", ""),
        ("/v1/models/detector:explain", "v1", ""),
        ("/v2/models/detector/infer", "v2", ""),
        ("/v2/models/detector/versions/1.0/infer", "v2", "1.0"),
        ("/predictions/another", "predict", "unknown"),
        ("/v1/models/another:predict", "v1", "unknown"),
        ("/predictions", "other", "unknown"),
        ("/", "other", "unknown"),
        ("/favicon.ico", "other", "unknown"),
    ],
)
def test_a_path_says_what_was_asked_for(path: str, kind: str, version: str) -> None:
    route = rest_route("POST", path)
    assert route is not None
    assert (route.kind, route.version) == (kind, version)


def test_questions_of_operators_have_no_route() -> None:
    for path in ("/ping", "/models", "/models/detector", "/metrics", "/v2", "/v2/health/live", "/v2/models/detector/ready"):
        assert rest_route("GET", path) is None
    assert rest_route("GET", "/v1/models/detector") is None
    assert grpc_route("org.pytorch.serve.grpc.openinference.GRPCInferenceService/ServerReady") is None


def test_exemplars_name_the_traces_that_are_recorded(begin: Callable[..., Served]) -> None:
    served = begin()
    unsampled = TRACEPARENT.replace(TRACE, "a" * 32)[:-2] + "00"
    served.frontend(access_line(trace=TRACEPARENT, code=500), access_line(trace=unsampled, code=500))
    buckets = [line for line in served.page().splitlines() if line.startswith("unmask_request_duration_seconds_bucket")]
    assert [line for line in buckets if f'# {{trace_id="{TRACE}"}} 0.0075' in line]
    assert not [line for line in buckets if "a" * 32 in line]
    assert [line["trace_id"] for line in served.log] == [TRACE, "a" * 32]
