"""TERM under load: whoever was accepted is answered, and behind a load balancer nobody notices a replacement."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.serve.balancer import Balancer
from tests.serve.running import PATIENCE, asking

REPLACED_UNDER = int(os.environ.get("REPLACED_UNDER", "500"))  # requests
LIMIT = 60  # seconds


def test_clients_that_keep_asking_are_sent_away_and_none_that_was_accepted_is_lost(start, artifacts, photos):
    server = start(artifacts, "--drain-limit", str(LIMIT)).await_ready()
    outcomes: Counter[str] = Counter()
    closing = threading.Event()

    def client() -> None:
        with httpx.Client(timeout=30, trust_env=False) as http:
            while True:
                response = http.post(server.record.rest_url, content=photos[0])
                outcomes[str(response.status_code)] += 1
                if response.headers.get("Connection") == "close":
                    closing.set()
                if response.status_code == 503:
                    outcomes["told to come back"] += response.headers["Retry-After"] == "1"
                    return

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    while outcomes["200"] < 50:
        time.sleep(0.01)
    server.signal(signal.SIGTERM)
    asked = time.monotonic()
    assert server.process.wait(PATIENCE) == 0
    assert time.monotonic() - asked < LIMIT, "it ended at the limit, not when nothing was in hand"
    for thread in threads:
        thread.join(30)
    assert closing.is_set()
    assert outcomes["503"] == outcomes["told to come back"] == len(threads)
    assert set(outcomes) == {"200", "503", "told to come back"}


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
