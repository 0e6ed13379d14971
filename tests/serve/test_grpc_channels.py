"""gRPC clients, which keep one connection: it is renewed now and then, and calls move on when a server ends."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence

import grpc
import numpy as np
import psutil

from serve import grpc_stubs
from serve.settings import MODEL
from tests.conftest import encode
from tests.serve.running import ROOT, RunningServer

CALLS = 300  # while servers are replaced
CLIENTS = 6


def channel_options() -> list[tuple[str, str | int]]:
    """The ones that docs/api.md gives to clients."""
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    text = next(text for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "methodConfig" in json.loads(text))
    given = re.search(r"^options = (.*)$", page, re.MULTILINE)
    assert given
    return eval(given[1], {"text": text})


def asking(
    target: str, photo: bytes, outcomes: Counter[str], over: threading.Event, options: Sequence[tuple[str, str | int]] = ()
) -> None:
    """Ask one photo after the other over one channel, and count the calls' status codes."""
    messages, services = grpc_stubs.load()
    request = messages.PredictionsRequest(model_name=MODEL, input={"data": photo})
    with grpc.insecure_channel(target, options=list(options)) as channel:
        stub = services.InferenceAPIsServiceStub(channel)
        while not over.is_set():
            try:
                answer = json.loads(stub.Predictions(request, timeout=60).prediction)
                outcomes["OK" if answer["ok"] else answer["error"]["code"]] += 1
            except grpc.RpcError as error:
                outcomes[error.code().name] += 1


def connections(server: RunningServer) -> set[int]:
    """Ports of the clients that are connected to its gRPC port."""
    port = int(server.record.grpc_target.rpartition(":")[2])
    found = psutil.Process(server.jvm.pid).net_connections("tcp")
    return {c.raddr.port for c in found if c.laddr.port == port and c.status == psutil.CONN_ESTABLISHED}


def test_a_connection_is_renewed_and_no_call_notices(start, artifacts, photos):
    server = start(artifacts, "--grpc-connection-age", "1").await_ready()
    outcomes: Counter[str] = Counter()
    over = threading.Event()
    client = threading.Thread(target=asking, args=(server.record.grpc_target, photos[0], outcomes, over))
    client.start()
    seen: set[int] = set()
    deadline = time.monotonic() + 30
    while len(seen) < 3 and time.monotonic() < deadline:
        seen |= connections(server)
        time.sleep(0.05)
    over.set()
    client.join(60)
    assert len(seen) >= 3
    assert set(outcomes) == {"OK"}


def test_calls_move_to_the_servers_that_stay(start, artifacts, photos):
    servers = [start(artifacts).await_ready() for _ in range(2)]
    target = "ipv4:" + ",".join(server.record.grpc_target for server in servers)
    outcomes: Counter[str] = Counter()
    over = threading.Event()
    large = encode(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8), "PNG")
    clients = [
        threading.Thread(target=asking, args=(target, photo, outcomes, over, channel_options()))
        for photo in (photos[0], large) * (CLIENTS // 2)
    ]
    for client in clients:
        client.start()
    while outcomes["OK"] < CALLS / 3:
        time.sleep(0.05)
    assert all(connections(server) for server in servers)
    servers[0].signal(signal.SIGTERM)
    assert servers[0].process.wait(60) == 0
    while outcomes.total() < CALLS:
        time.sleep(0.05)
    over.set()
    for client in clients:
        client.join(60)
    assert set(outcomes) == {"OK"}
