"""One line from TorchServe's frontend for each request that got an answer, whatever the answer was."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import httpx
import psutil
import pytest

from serve.client.grpc_stubs import load
from serve.ports import reserved_ports
from serve.processes import process
from serve.record import management_url
from serve.settings import MODEL, Settings
from serve.torchserve.artifacts import install_archives
from serve.torchserve.management import Management
from serve.torchserve.render import BODY_MARGIN, Layout, render
from tests.waiting import PATIENCE

LINE = re.compile(
    r"(?P<listener>grpc|/\S+:\d+)\t(?P<code>\d+)\t(?P<nanoseconds>\d+)\t(?P<arrival>\d+)\t(?P<job>[0-9a-f-]{36})\t(?P<id>\S+)\t"
    r"(?P<trace>\S+)\t(?P<length>\d+|-)\t(?P<version>\S+)\t(?P<method>[^\t]+)\t(?P<uri>.*)"
)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Frontend:
    """TorchServe's JVM with one worker and a queue of one, without a supervisor, and a reader of its lines."""

    def __init__(self, artifacts: Path, settings: Settings, temporary: Path) -> None:
        layout = Layout(settings.state, temporary)
        layout.make()
        archives = install_archives(settings, layout)
        os.mkfifo(layout.access)
        self._pipe = os.open(layout.access, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""
        self.settings, self.address = settings, f"/127.0.0.1:{settings.rest_port}"
        self.url, self.target = f"http://127.0.0.1:{settings.rest_port}", f"127.0.0.1:{settings.grpc_port}"
        self._management, self._versions = Management(management_url(settings)), tuple(archives)
        command = render(settings, archives, layout, {"PATH": os.environ["PATH"]} | environment())
        with (settings.state / "jvm.log").open("wb") as output:
            self.process = process.start(command.arguments, command.environment, command.directory, output)
        self.worker = self.await_worker()
        self.messages, self.services = load()
        self.channel = grpc.insecure_channel(self.target)
        self.stub = self.services.InferenceAPIsServiceStub(self.channel)

    def await_worker(self, other_than: int = 0) -> int:
        """Process id of the worker, once it is ready."""
        deadline = time.monotonic() + PATIENCE
        while True:
            status = self._management.status(self._versions)
            if status is not None and status.serving and not status.ready <= {other_than}:
                return next(iter(status.ready))
            assert self.process.poll() is None, (self.settings.state / "jvm.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def lines(self, count: int) -> list[dict[str, str]]:
        """The next lines, but for those of the management listener, and a moment later no further one."""
        found: list[dict[str, str]] = []
        deadline, quiet = time.monotonic() + PATIENCE, 0.0
        while (len(found) < count or quiet < 0.3) and time.monotonic() < deadline:
            with suppress(BlockingIOError):
                self._rest += os.read(self._pipe, 65536)
                quiet = 0.0
            *whole, self._rest = self._rest.split(b"\n")
            for line in whole:
                match = LINE.fullmatch(line.decode())
                assert match is not None, line
                if match["listener"] in ("grpc", self.address):
                    found.append(match.groupdict())
            time.sleep(0.02)
            quiet += 0.02
        assert len(found) == count, found
        return found

    def line(self) -> dict[str, str]:
        """The one line of the last request."""
        return self.lines(1)[0]

    def predictions(self, photo: bytes, version: str = "", **options: Any) -> grpc.Future:
        """A gRPC call that is under way."""
        request = self.messages.PredictionsRequest(model_name=MODEL, model_version=version, input={"data": photo})
        return self.stub.Predictions.future(request, timeout=PATIENCE, **options)

    def waiting(self) -> int:
        """Requests in the queue."""
        answer = httpx.get(f"{management_url(self.settings)}/models/{MODEL}", timeout=PATIENCE, trust_env=False)
        return int(answer.json()[0]["jobQueueStatus"]["pendingRequests"])

    def close(self) -> None:
        """End it."""
        self.channel.close()
        self._management.close()
        process.stop(self.process, 0.2)
        os.close(self._pipe)


def environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("HOME", "JAVA_HOME", "OMP_NUM_THREADS") if name in os.environ}


@pytest.fixture(scope="module")
def frontend(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frontend]:
    """A frontend for this module's tests."""
    free = dict.fromkeys(("rest_port", "management_port", "metrics_port", "grpc_port", "grpc_management_port"), 0)
    settings = Settings(
        artifacts=(artifacts,),
        state=tmp_path_factory.mktemp("frontend"),
        **{
            "workers": 1,
            "threads": 1,
            "queue_size": 1,
            "batch_size": 1,
            "max_body_bytes": 2**20,
            "supervisor_port": 0,
            **free,
        },
    )
    with reserved_ports(settings) as settings, TemporaryDirectory(prefix="unmask-") as temporary:
        running = Frontend(artifacts, settings, Path(temporary))
        try:
            yield running
        finally:
            running.close()


def post(frontend: Frontend, path: str, content: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{frontend.url}{path}", content=content, headers=headers, timeout=PATIENCE, trust_env=False)


def test_a_line_over_rest_says_what_came_and_how_long_it_took(frontend, photos):
    before = time.monotonic_ns()
    response = post(
        frontend, f"/predictions/{MODEL}?use_calib=0", photos[0], **{"x-request-id": "mine.1234", "traceparent": TRACE}
    )
    took = time.monotonic_ns() - before
    line = frontend.line()
    assert response.status_code == 200
    assert response.headers["x-request-id"] == line["id"] == "mine.1234"
    assert 0 < int(line["nanoseconds"]) < took
    assert before < int(line["arrival"]) < before + took
    assert line["listener"] == frontend.address
    assert line | {"nanoseconds": "", "arrival": "", "job": "", "listener": ""} == {
        "listener": "",
        "code": "200",
        "nanoseconds": "",
        "arrival": "",
        "job": "",
        "id": "mine.1234",
        "trace": TRACE,
        "length": str(len(photos[0])),
        "version": "-",
        "method": "POST",
        "uri": f"/predictions/{MODEL}?use_calib=0",
    }


def test_what_is_no_request_id_and_no_traceparent_is_replaced_and_left_out(frontend, photos):
    for bad in ("short", "x" * 129, "a b c d e f", "tab\tin it"):
        response = post(frontend, f"/predictions/{MODEL}", photos[0], **{"x-request-id": bad, "traceparent": bad})
        line = frontend.line()
        assert (line["id"], line["trace"]) == ("-", "-")
        assert response.headers["x-request-id"] == line["job"]


def test_unknown_paths_and_models_broken_requests_and_kserves_forms_have_one_each(frontend, photos):
    v2 = {"inputs": [{"name": "data", "shape": [1], "datatype": "BYTES", "data": ["AAAA"]}]}
    codes = [post(frontend, path, photos[0]).status_code for path in ("/predictions/nosuch", "/nothing/here")]
    codes += [post(frontend, f"/predictions/{MODEL}", b"no photo").status_code]
    codes += [httpx.post(f"{frontend.url}/v2/models/{MODEL}/infer", json=v2, timeout=PATIENCE, trust_env=False).status_code]
    with socket.create_connection(("127.0.0.1", frontend.settings.rest_port)) as connection:
        connection.sendall(b"NONSENSE\r\n\r\n")
        codes.append(int(connection.recv(4096).split()[1]))
    lines = frontend.lines(5)
    assert [int(line["code"]) for line in lines] == codes
    assert codes[:2] == [404, 404]
    assert codes[4] == 400
    assert lines[3]["uri"] == f"/v2/models/{MODEL}/infer"


@pytest.mark.parametrize("expect", ["", "Expect: 100-continue\r\n"])
def test_a_body_that_the_frontend_refuses_has_one(frontend, expect):
    length = frontend.settings.max_body_bytes + BODY_MARGIN + 1
    head = f"POST /predictions/{MODEL} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n{expect}\r\n"
    with socket.create_connection(("127.0.0.1", frontend.settings.rest_port)) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")
        line = frontend.line()
    assert (line["code"], line["length"], line["uri"]) == ("413", str(length), f"/predictions/{MODEL}")


def test_a_line_over_grpc_has_the_version_that_was_asked_for(frontend, photos):
    metadata = (("x-request-id", "mine.5678"), ("traceparent", TRACE))
    assert frontend.predictions(photos[0], "1.0", metadata=metadata).code() is grpc.StatusCode.OK
    line = frontend.line()
    assert (line["listener"], line["code"], line["version"]) == ("grpc", "0", "1.0")
    assert (line["id"], line["trace"], line["length"]) == ("mine.5678", TRACE, "-")
    assert (line["method"], line["uri"]) == ("gRPC", "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions")
    assert frontend.predictions(photos[0]).code() is grpc.StatusCode.OK
    assert frontend.line()["version"] == "-"
    assert frontend.predictions(photos[0], "a\tb\nc").code() is grpc.StatusCode.NOT_FOUND
    assert frontend.line()["version"] == "-"


def test_kserves_grpc_has_one(frontend):
    from serve.client.grpc_stubs import generate

    generate()
    infer = frontend.channel.unary_unary("/org.pytorch.serve.grpc.openinference.GRPCInferenceService/ModelInfer")
    # model_name = 1, model_version = 2 in the protocol's message
    call = infer.future(b"\x0a" + bytes([len(MODEL)]) + MODEL.encode() + b"\x12\x031.0", timeout=PATIENCE)
    code = call.code()
    line = frontend.line()
    assert (line["code"], line["version"]) == (str(code.value[0]), "1.0")
    assert line["uri"].endswith("GRPCInferenceService/ModelInfer")
    assert code is grpc.StatusCode.OK
    assert frontend.await_worker() == frontend.worker, "a request that can't be scored costs no worker"


def test_refused_and_cancelled_calls_have_one_each(frontend, slow_photo):
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: post(frontend, f"/predictions/{MODEL}", slow_photo).status_code, range(12)))
    lines = frontend.lines(12)
    assert sorted(int(line["code"]) for line in lines) == sorted(answers)
    assert set(answers) == {200, 503}
    assert len({line["job"] for line in lines}) == 12

    calls = [frontend.predictions(slow_photo) for _ in range(12)]
    codes = [call.code().value[0] for call in calls]
    assert sorted(int(line["code"]) for line in frontend.lines(12)) == sorted(codes)
    assert set(codes) == {0, 8}


def test_a_cancelled_call_has_one(frontend, slow_photo):
    calls, cancelled = 0, False
    while not cancelled:
        first, second = frontend.predictions(slow_photo), frontend.predictions(slow_photo)
        calls += 2
        while not second.done():
            if frontend.waiting():
                cancelled = second.cancel()
                break
        first.exception()
        second.done() or second.exception()
    codes = [line["code"] for line in frontend.lines(calls)]
    assert codes.count("1") == 1


def test_a_request_whose_worker_dies_has_one(frontend, slow_photo):
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(post(frontend, f"/predictions/{MODEL}", slow_photo).status_code))
    asking.start()
    time.sleep(0.2)
    psutil.Process(frontend.worker).kill()
    asking.join(PATIENCE)
    line = frontend.line()
    assert int(line["code"]) == answers[0]
    frontend.worker = frontend.await_worker(other_than=frontend.worker)
