"""TERM under load: whoever was accepted is answered, and behind a load balancer nobody notices a replacement."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from serve.client.grpc_stubs import load
from serve.settings import MODEL
from tests.serve.balancer import Balancer
from tests.serve.running import asking
from tests.waiting import PATIENCE

REPLACED_UNDER = int(os.environ.get("REPLACED_UNDER", "500"))  # requests
LIMIT = 60  # seconds


def test_clients_that_keep_asking_are_sent_away_and_none_that_was_accepted_is_lost(start, artifacts, photos):
    """Each request is answered, or its connection is refused before it is sent: nothing else happens to one."""
    server = start(artifacts, "--drain-grace", "0", "--drain-limit", str(LIMIT)).await_ready()
    outcomes: Counter[str] = Counter()
    address = urlsplit(server.record.rest_url)
    messages, services = load()
    request = messages.PredictionsRequest(model_name=MODEL, input={"data": photos[0]})

    def over_rest() -> None:
        while True:
            connection = HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE)
            try:
                connection.connect()
            except ConnectionRefusedError:
                outcomes["REST refused"] += 1
                return
            with closing(connection):
                closes = False
                while not closes:
                    connection.request("POST", address.path, photos[0])
                    response = connection.getresponse()
                    response.read()
                    outcomes[f"REST {response.status}"] += 1
                    closes = response.headers["Connection"] == "close"

    def over_grpc() -> None:
        with grpc.insecure_channel(server.record.grpc_target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = services.InferenceAPIsServiceStub(channel)
            while (call := stub.Predictions.future(request, timeout=PATIENCE)).code() is grpc.StatusCode.OK:
                outcomes["gRPC OK"] += 1
        refused = call.code() is grpc.StatusCode.UNAVAILABLE and "Connection refused" in call.details()
        outcomes["gRPC refused" if refused else f"{call.code()}: {call.details()}"] += 1

    with ThreadPoolExecutor(16) as pool:
        clients = [pool.submit(over_grpc if number % 2 else over_rest) for number in range(16)]
        while outcomes["REST 200"] < 25 or outcomes["gRPC OK"] < 25:
            assert not any(client.done() for client in clients), outcomes
            time.sleep(0.01)
        server.signal(signal.SIGTERM)
        asked = time.monotonic()
        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - asked < LIMIT, "it ended at the limit, not when nothing was in hand"
        for client in clients:
            client.result()
    assert set(outcomes) == {"REST 200", "REST refused", "gRPC OK", "gRPC refused"}
    assert outcomes["REST refused"] == outcomes["gRPC refused"] == 8


def test_a_connection_that_stays_open_and_sends_nothing_does_not_hold_a_drain_up(start, artifacts):
    server = start(artifacts, "--drain-limit", str(LIMIT)).await_ready()
    address = urlsplit(server.record.rest_url)
    with socket.create_connection((str(address.hostname), int(address.port or 0))) as connection:
        asked = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - asked < LIMIT
        assert connection.recv(1) == b"", "closed, not reset"


def test_two_servers_are_replaced_behind_a_load_balancer_and_no_request_is_lost(start, artifacts: Path, photos):
    servers = [start(artifacts, "--drain-grace", "1") for _ in range(2)]
    for server in servers:
        server.await_ready()
    backends = [(s.record.rest_url, f"{s.record.supervisor_url}/readyz") for s in servers]
    balancer = Balancer(lambda: backends)
    try:
        while balancer.ready() < 2:
            time.sleep(0.05)
        connections = [HTTPConnection("127.0.0.1", balancer.port, timeout=60) for _ in range(6)]
        statuses: Counter[int] = Counter()

        def ask(number: int) -> None:
            connections[number].request("POST", "/", photos[0])
            response = connections[number].getresponse()
            response.read()
            statuses[response.status] += 1

        with asking(ask, clients=len(connections)):
            for old in list(servers):
                new = start(artifacts, "--drain-grace", "1").await_ready()
                backends.append((new.record.rest_url, f"{new.record.supervisor_url}/readyz"))
                while balancer.ready() < 3:
                    time.sleep(0.05)
                gone = urlsplit(old.record.rest_url).port
                old.signal(signal.SIGTERM)
                assert old.process.wait(PATIENCE) == 0
                backends[:] = [each for each in backends if urlsplit(each[0]).port != gone]
                while balancer.ready() != 2:
                    time.sleep(0.05)
            while sum(statuses.values()) < REPLACED_UNDER:
                time.sleep(0.1)
    finally:
        balancer.close()
    assert set(statuses) == {200}
