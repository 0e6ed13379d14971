"""Locust users that send photos over REST and gRPC and check every answer; a wrong one is a failure with its reason.

On its own, with Locust's web page:
`python -m locust -f benchmarks/load/locustfile.py --host http://127.0.0.1:8080 RestUser`
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
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

from benchmarks.load.checker import AnswerChecker
from benchmarks.machine import busy_seconds
from benchmarks.photos import Photo, load_photos
from serve.client import grpc_stubs
from serve.settings import MODEL

# Before any channel is made: without it one call blocks all users, since gRPC waits outside Python.
grpc.experimental.gevent.init_gevent()

PATH = f"/predictions/{MODEL}"
HEADERS = {"Content-Type": "application/octet-stream"}
TIMEOUT_SECONDS = 60.0  # as Locust's own for HTTP
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
    """Our options beside Locust's; each has an environment variable."""
    group = parser.add_argument_group("Detector options")
    add = group.add_argument
    add("--photos", metavar="DIR", env_var="UNMASK_BENCH_PHOTOS", help="folder of photos; drawn ones without it")
    add("--photo-count", type=int, default=100, env_var="UNMASK_BENCH_PHOTO_COUNT", help="how many photos to send in turn")
    add("--grpc-address", default="127.0.0.1:7070", env_var="UNMASK_BENCH_GRPC_ADDRESS", help="host:port for GrpcUser")
    add("--known", metavar="FILE", env_var="UNMASK_BENCH_KNOWN", help="JSON: calibrated probability by photo name")
    add(
        "--samples",
        metavar="FILE",
        env_var="UNMASK_BENCH_SAMPLES",
        help="where to write every request's time and fate, as JSON",
    )


def prepare(environment: Environment, **_: Any) -> None:
    """Load the photos and set up the checker, once for all users."""
    options = environment.parsed_options
    assert options is not None
    known = json.loads(Path(options.known).read_text(encoding="utf-8")) if options.known else {}
    Sender.photos = load_photos(Path(options.photos) if options.photos else None, options.photo_count)
    Sender.checker = AnswerChecker(known)
    if options.samples:
        record(environment, Path(options.samples))
    if GrpcUser in environment.user_classes:  # REST alone needs no TorchServe on this machine to make stubs from
        GrpcUser.messages, GrpcUser.services = grpc_stubs.load()
    # gevent's timers count from the last time its loop ran, before all that was imported and drawn: --run-time ends early.
    gevent.get_hub().loop.update_now()


def record(environment: Environment, path: Path) -> None:
    """Keep every request. Locust's own percentiles are rounded to whole milliseconds, too coarse for answers in five."""
    started: list[float] = []
    milliseconds: list[float] = []
    problems: list[str] = []
    cpu = machine_cpu = 0.0

    def begin(**_: Any) -> None:
        nonlocal cpu, machine_cpu
        cpu, machine_cpu = time.process_time(), busy_seconds()

    def keep(start_time: float, response_time: float, exception: Exception | None, **_: Any) -> None:
        started.append(start_time)
        milliseconds.append(response_time)
        problems.append(str(exception) or type(exception).__name__ if exception else "")

    def write(**_: Any) -> None:
        values = {
            "started": started,
            "milliseconds": milliseconds,
            "problems": problems,
            "cpu_seconds": time.process_time() - cpu,
            "machine_cpu_seconds": busy_seconds() - machine_cpu,
        }
        path.write_text(json.dumps(values), encoding="utf-8")

    environment.events.test_start.add_listener(begin)
    environment.events.request.add_listener(keep)
    environment.events.test_stop.add_listener(write)


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

    def on_start(self) -> None:
        """Open the connection and take a place in the row of photos."""
        self.turn = self.photos_in_turn()
        options = self.environment.parsed_options
        assert options is not None
        self.channel = grpc.insecure_channel(options.grpc_address, OWN_CONNECTION)
        grpc.channel_ready_future(self.channel).result(timeout=TIMEOUT_SECONDS)
        self.call = self.services.InferenceAPIsServiceStub(self.channel).Predictions

    def on_stop(self) -> None:
        """Close the connection."""
        self.channel.close()

    @task
    def predict(self) -> None:
        """Send one photo and check its verdict; TorchServe says OK over gRPC to bad photos too, so the body decides."""
        photo = next(self.turn)
        request = self.messages.PredictionsRequest(model_name=MODEL, input={"data": photo.data})
        body, failure = b"", None
        started, start = time.time(), time.perf_counter()
        try:
            body = self.call(request, timeout=TIMEOUT_SECONDS).prediction
        except grpc.RpcError as error:
            failure = WrongAnswer(f"gRPC {error.code().name}: {error.details()}")
        milliseconds = 1e3 * (time.perf_counter() - start)
        if failure is None and (problem := self.checker.problem(photo.name, body)):
            failure = WrongAnswer(problem)
        self.environment.events.request.fire(
            request_type="gRPC",
            name="gRPC",
            start_time=started,
            response_time=milliseconds,
            response_length=len(body),
            exception=failure,
            context={},
        )


events.init_command_line_parser.add_listener(add_options)
events.init.add_listener(prepare)
