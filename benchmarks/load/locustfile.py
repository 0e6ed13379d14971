"""Locust users that send photos over REST and gRPC and check every answer; a wrong one is a failure with its reason.

On its own, with Locust's web page, from any folder:
`locust -f benchmarks/load/locustfile.py --host http://127.0.0.1:8080 --grpc-address 127.0.0.1:7070`
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import gevent  # type: ignore[import-untyped]
import grpc
import grpc.experimental.gevent
from locust import FastHttpUser, User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    # Locust is started in any folder, and this project may not be installed. Locust removes the first entry, its own, later.
    sys.path.insert(1, str(ROOT))

from benchmarks.load.checker import AnswerChecker
from benchmarks.load.locust_metrics import serve_metrics
from benchmarks.machine import busy_seconds
from benchmarks.photos import Photo, load_photos
from detector.errors import FileError
from serve.client import grpc_stubs
from serve.settings import MODEL

# Before any channel is made: without it one call blocks all users, since gRPC waits outside Python.
grpc.experimental.gevent.init_gevent()

PATH = f"/predictions/{MODEL}"
HEADERS = {"Content-Type": "application/octet-stream"}
TIMEOUT_SECONDS = 60.0  # as Locust's own for HTTP
CONNECT_SECONDS = 5.0
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]  # else all channels of a process share one


class WrongAnswer(Exception):
    """An answer fails the check."""


class Sender:
    """What all users share: the photos and the checker of answers."""

    photos: ClassVar[list[Photo]]
    checker: ClassVar[AnswerChecker]
    arrivals: ClassVar[Iterator[int]] = count()

    def photos_in_turn(self) -> Iterator[Photo]:
        """The photos in an endless cycle that starts at a different photo for each user."""
        first = next(self.arrivals) * 7 % len(self.photos)
        return cycle([*self.photos[first:], *self.photos[:first]])


def add_options(parser: LocustArgumentParser) -> None:
    """Our options beside Locust's; each has an environment variable. With workers, those of the master count."""
    group = parser.add_argument_group("Detector options")
    add = group.add_argument
    add("--photos", metavar="DIR", env_var="UNMASK_BENCH_PHOTOS", help="folder of photos; drawn ones without it")
    add("--photo-count", type=int, default=100, env_var="UNMASK_BENCH_PHOTO_COUNT", help="how many photos to send in turn")
    add("--grpc-address", default="", env_var="UNMASK_BENCH_GRPC_ADDRESS", help="host:port for GrpcUser")
    add("--known", metavar="FILE", env_var="UNMASK_BENCH_KNOWN", help="JSON: calibrated probability by photo name")
    add(
        "--samples",
        metavar="FILE",
        env_var="UNMASK_BENCH_SAMPLES",
        help="where to write every request's time and fate, as JSON; workers add their number to the name",
    )
    add(
        "--prometheus-port",
        type=int,
        env_var="UNMASK_BENCH_PROMETHEUS_PORT",
        help="port of loopback for Locust's numbers as Prometheus metrics; 0 takes a free one",
    )


def set_up(environment: Environment, **_: Any) -> None:
    """Serve the metrics, and make every test prepare itself in the processes that have users."""
    options, runner = environment.parsed_options, environment.runner
    assert options is not None
    assert runner is not None
    if options.prometheus_port is not None and not isinstance(runner, WorkerRunner):
        try:
            port = serve_metrics(runner, options.prometheus_port)
        except OSError as error:
            sys.exit(f"error: --prometheus-port {options.prometheus_port}: {error.strerror}")
        print(f"metrics: http://127.0.0.1:{port}/metrics", file=sys.stderr)
    if not isinstance(runner, MasterRunner):
        Recorder().listen(environment)
        Prepared().listen(environment)
    # gevent's timers count from the last time its loop ran, before all that was imported and drawn: --run-time ends early.
    gevent.get_hub().loop.update_now()


class Prepared:
    """Loads the photos and sets up the checker, once for all users, before the first test. A worker has the master's options
    from the start of a test on, and does it again where they are others."""

    def listen(self, environment: Environment) -> None:
        """Prepare now and, where that is needed, at the start of each test."""
        options = environment.parsed_options
        assert options is not None
        self._options: tuple[Any, ...] = ()
        environment.events.test_start.add_listener(self._prepare)
        self._prepare(environment, at_once=True)
        if GrpcUser in environment.user_classes:
            # REST alone needs no TorchServe on this machine to make stubs from. A worker doesn't know yet what its users need.
            with suppress(*(() if options.grpc_address else (FileError, ImportError))):
                GrpcUser.messages, GrpcUser.services = grpc_stubs.load()

    def _prepare(self, environment: Environment, *, at_once: bool = False, **_: Any) -> None:
        options = environment.parsed_options
        assert options is not None
        wanted = (options.photos, options.photo_count, options.known)
        if wanted == self._options:
            return
        self._options = wanted
        known = json.loads(Path(options.known).read_text(encoding="utf-8")) if options.known else {}
        arguments = (Path(options.photos) if options.photos else None, options.photo_count)
        # Later in a thread: a worker that sends its master no sign of life for three seconds is given up. Not at once: the
        # master's word to start would overtake us.
        Sender.photos = load_photos(*arguments) if at_once else gevent.get_hub().threadpool.apply(load_photos, arguments)
        Sender.checker = AnswerChecker(known)


class Recorder:
    """Keeps every request. Locust's own percentiles are rounded to whole milliseconds, too coarse for answers in five."""

    def listen(self, environment: Environment) -> None:
        """Record each test of `environment` from its start to its end."""
        environment.events.test_start.add_listener(self._begin)
        environment.events.request.add_listener(self._keep)
        environment.events.test_stop.add_listener(self._write)

    def _begin(self, environment: Environment, **_: Any) -> None:
        options = environment.parsed_options
        self._path = Path(options.samples) if options and options.samples else None
        self._started: list[float] = []
        self._milliseconds: list[float] = []
        self._problems: list[str] = []
        self._cpu, self._machine_cpu = time.process_time(), busy_seconds()

    def _keep(self, start_time: float, response_time: float, exception: Exception | None, **_: Any) -> None:
        if self._path is None:
            return
        self._started.append(start_time)
        self._milliseconds.append(response_time)
        self._problems.append(str(exception) or type(exception).__name__ if exception else "")

    def _write(self, environment: Environment, **_: Any) -> None:
        if (path := self._path) is None:
            return
        if isinstance(environment.runner, WorkerRunner):
            path = path.with_name(f"{path.stem}-{environment.runner.worker_index}{path.suffix}")
        values = {
            "started": self._started,
            "milliseconds": self._milliseconds,
            "problems": self._problems,
            "cpu_seconds": time.process_time() - self._cpu,
            "machine_cpu_seconds": busy_seconds() - self._machine_cpu,
        }
        path.write_text(json.dumps(values), encoding="utf-8")


class RestUser(Sender, FastHttpUser):
    """Posts photos to /predictions/detector, one after the other, over a connection of its own."""

    def on_start(self) -> None:
        """Take a place in the row of photos."""
        self.turn = self.photos_in_turn()

    @task
    def predict(self) -> None:
        """Send one photo and check its verdict."""
        photo = next(self.turn)
        body: Any = photo.data  # Locust's annotation knows text only, and sends bytes as they are
        with self.client.post(PATH, data=body, headers=HEADERS, name="REST", catch_response=True) as answer:
            if answer.status_code == 0:  # no answer at all; Locust reports the connection's own error
                return
            problem = self.checker.problem(photo.name, answer.content or b"", answer.status_code)
            if problem:
                answer.failure(WrongAnswer(problem))
            else:
                answer.success()


class GrpcUser(Sender, User):
    """Sends photos to InferenceAPIsService.Predictions, one after the other, over a connection of its own."""

    messages: ClassVar[ModuleType]
    services: ClassVar[ModuleType]
    channel: grpc.Channel | None = None
    call: Any = None

    def on_start(self) -> None:
        """Open the connection and take a place in the row of photos; without a connection, fail once with the reason."""
        self.turn = self.photos_in_turn()
        options = self.environment.parsed_options
        assert options is not None
        if not options.grpc_address:
            self._report(time.time(), 0.0, WrongAnswer("no gRPC address: give --grpc-address host:port, or RestUser alone"))
            return
        started, start = time.time(), time.perf_counter()
        self.channel = grpc.insecure_channel(options.grpc_address, OWN_CONNECTION)
        try:
            grpc.channel_ready_future(self.channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            problem = WrongAnswer(f"no gRPC connection to {options.grpc_address} within {CONNECT_SECONDS:.0f} s")
            self._report(started, 1e3 * (time.perf_counter() - start), problem)
            return
        self.call = self.services.InferenceAPIsServiceStub(self.channel).Predictions

    def on_stop(self) -> None:
        """Close the connection."""
        if self.channel is not None:
            self.channel.close()

    @task
    def predict(self) -> None:
        """Send one photo and check its verdict; TorchServe says OK over gRPC to bad photos too, so the body decides."""
        if self.call is None:
            raise StopUser
        photo = next(self.turn)
        request = self.messages.PredictionsRequest(model_name=MODEL, input={"data": photo.data})
        body, failure = b"", None
        started, start = time.time(), time.perf_counter()
        try:
            body = self.call(request, timeout=TIMEOUT_SECONDS).prediction
        except grpc.RpcError as error:
            failure = WrongAnswer(f"gRPC {error.code().name}: {error.details()}")
        milliseconds = 1e3 * (time.perf_counter() - start)
        if failure is None and (problem := self.checker.problem(photo.name, body, None)):
            failure = WrongAnswer(problem)
        self._report(started, milliseconds, failure, len(body))

    def _report(self, started: float, milliseconds: float, failure: Exception | None, length: int = 0) -> None:
        self.environment.events.request.fire(
            request_type="gRPC",
            name="gRPC",
            start_time=started,
            response_time=milliseconds,
            response_length=length,
            exception=failure,
            context={},
        )


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(set_up)
