"""Every panel of the dashboards, asked of a real Prometheus that scrapes a real server: each answers, and none divides by
zero."""

from __future__ import annotations

import base64
import contextlib
import math
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from k8s.monitoring.queries import boards, panels
from serve.client.client import GrpcClient, RestClient
from tests.benchmarks.test_locust import locust, printed
from tests.prometheus import Prometheus, await_, scaled
from tests.serve.conftest import NEW, OLD
from tests.serve.running import RunningServer, asking

FACTOR = 60.0  # the rules' six hours are six minutes
WINDOW = "10m"  # of the panels' rates, before it is scaled as the rules are
QUEUE = 8
CLIENTS = 7  # of which the last asks in bursts that the queue can't take
GPU = "GPU"  # the row of panels that have nothing to show without one


@dataclass(frozen=True)
class Watched:
    """A server of two versions with short queues, and the Prometheus that scrapes it."""

    server: RunningServer
    prometheus: Prometheus


@pytest.fixture(scope="module")
def watched(artifacts: Path, newer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server that no client has asked yet."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    folder = tmp_path_factory.mktemp("watched")
    flags = ("--artifacts", str(newer), "--workers", "1", "--threads", "1", "--queue-size", str(QUEUE))
    with contextlib.ExitStack() as over:
        server = RunningServer(artifacts, folder / "state", *flags)
        over.callback(server.stop)
        prometheus = Prometheus(folder / "prometheus", FACTOR)
        over.callback(prometheus.close)
        server.await_ready()
        prometheus.watch(server.record.supervisor_url)
        yield Watched(server, prometheus)


def queries(board: str) -> list[tuple[str, str, str]]:
    """Row, title and expression of every query of a dashboard, in quick motion."""
    return [
        (panel.row, panel.title, scaled(target.expression, FACTOR))
        for panel in panels(board, WINDOW)
        for target in panel.targets
    ]


def test_before_the_first_request_no_query_divides_by_zero(watched: Watched) -> None:
    prometheus = watched.prometheus
    prometheus.awaited("sum(unmask:requests:rate5m) == 0", "a rate of requests that is 0")
    prometheus.scrapes(4)
    for board in boards():
        for row, title, expression in queries(board):
            values = prometheus.values(expression)
            assert all(map(math.isfinite, values)), f"{board}, {row}, {title}: {expression} is {values}"


class Mixed:
    """Requests of every kind: both protocols, both versions, one photo and many, with an explanation, and broken ones."""

    def __init__(self, server: RunningServer, photos: list[bytes]) -> None:
        self._server, self._photos = server, photos
        rest, grpc = RestClient(server.record.rest_url, version=NEW), GrpcClient(server.record.grpc_target, version=NEW)
        self._clients = [server.rest, server.grpc, rest, grpc]
        self._several = {"instances": [{"b64": base64.b64encode(photo).decode()} for photo in photos[:30]]}
        self.close = contextlib.ExitStack()
        for client in (rest, grpc):
            self.close.callback(client.close)

    def ask(self, number: int) -> None:
        """One kind of request for each number, over a part of the photos."""
        if number == CLIENTS - 1:
            return self._burst()
        for photo in self._photos[number::8]:
            if number < len(self._clients):
                self._clients[number].predict(photo)
            elif number == len(self._clients):
                self._server.post(json=self._several)
            else:
                self._server.post(content=photo[: len(photo) // 2])
                self._server.post("?explain=1", content=photo)
        return None

    def _burst(self) -> None:
        """Ask from more clients at once than there are places in the queue."""
        for client in (self._server.rest, self._server.grpc):
            with ThreadPoolExecutor(4 * QUEUE) as pool:
                list(pool.map(client.predict, self._photos[: 4 * QUEUE]))
        time.sleep(1)


def test_under_a_load_of_every_kind_each_panel_has_data(watched: Watched, photos: list[bytes], tmp_path: Path) -> None:
    server, prometheus = watched.server, watched.prometheus
    record = server.record
    host = f"http://127.0.0.1:{record.ports['rest_port']}"
    users = ("--headless", "--users", "2", "--host", host, "--grpc-address", record.grpc_target, "--prometheus-port", "0")
    labels = [
        {"version": version, "score": 0.1 + 0.08 * (n % 10), "label": ("real", "fake")[n % 2]}
        for version in (OLD, NEW)
        for n in range(250)
    ]
    mixed = Mixed(server, photos)
    with mixed.close, asking(mixed.ask, CLIENTS), locust(tmp_path, "log", *users) as (process, log):
        prometheus.watch(record.supervisor_url, locust=printed(r"metrics: (http\S+)", process, log)[1])
        posted = httpx.post(f"{record.supervisor_url}/feedback", json=labels, timeout=30, trust_env=False)
        assert posted.status_code == 200, posted.text
        for board in boards():
            for row, title, expression in queries(board):
                if row == GPU:
                    continue
                where = f"{board}, {row}, {title}: {expression}"
                await_(partial(prometheus.values, expression), where)
                values = prometheus.values(expression)
                assert all(map(math.isfinite, values)), f"{where} is {values}"
