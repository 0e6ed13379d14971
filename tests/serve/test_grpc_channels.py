"""gRPC clients, which keep one connection: it is renewed now and then, and calls move on when a server ends."""

from __future__ import annotations

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import grpc
import numpy as np
import psutil

from serve.client import grpc_stubs
from serve.settings import MODEL
from tests.conftest import encode
from tests.serve.running import ROOT, RunningServer, asking
from tests.waiting import PATIENCE

CALLS = 300  # while servers are replaced
CLIENTS = 6


def channel_options() -> list[tuple[str, str | int]]:
    """The ones that docs/how-to/call.md gives to clients."""
    page = (ROOT / "docs" / "how-to" / "call.md").read_text(encoding="utf-8")
    text = next(text for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "methodConfig" in json.loads(text))
    given = re.search(r"^options = (.*)$", page, re.MULTILINE)
    assert given
    return eval(given[1], {"text": text})


@contextmanager
def calling(target: str, photos: Sequence[bytes], options: Sequence[tuple[str, str | int]] = ()) -> Iterator[Counter[str]]:
    """Clients with a channel of their own and a photo each, which they ask for again and again; the calls' outcomes so far."""
    messages, services = grpc_stubs.load()
    requests = [messages.PredictionsRequest(model_name=MODEL, input={"data": photo}) for photo in photos]
    outcomes: Counter[str] = Counter()

    def ask(number: int) -> None:
        try:
            answer = json.loads(stubs[number].Predictions(requests[number], timeout=60).prediction)
            outcomes["OK" if answer["ok"] else answer["error"]["code"]] += 1
        except grpc.RpcError as error:
            outcomes[error.code().name] += 1

    with ExitStack() as stack:
        # Channels of the same target and options would share one connection.
        own = [*options, ("grpc.use_local_subchannel_pool", 1)]
        channels = [stack.enter_context(grpc.insecure_channel(target, options=own)) for _ in photos]
        stubs = [services.InferenceAPIsServiceStub(channel) for channel in channels]
        with asking(ask, clients=len(photos)):
            yield outcomes


def connections(server: RunningServer) -> set[int]:
    """Ports of the clients that are connected to its gRPC port."""
    port = int(server.record.grpc_target.rpartition(":")[2])
    found = psutil.Process(server.jvm.pid).net_connections("tcp")
    return {c.raddr.port for c in found if c.laddr.port == port and c.status == psutil.CONN_ESTABLISHED}


def test_a_connection_is_renewed_and_no_call_notices(start, artifacts, photos):
    server = start(artifacts, "--grpc-connection-age", "1").await_ready()
    seen: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    with calling(server.record.grpc_target, photos[:1]) as outcomes:
        while len(seen) < 3 and time.monotonic() < deadline:
            seen |= connections(server)
            time.sleep(0.05)
    assert len(seen) >= 3
    assert set(outcomes) == {"OK"}


def test_calls_move_to_the_servers_that_stay(start, artifacts, photos):
    servers = [start(artifacts) for _ in range(2)]
    for server in servers:
        server.await_ready()
    target = "ipv4:" + ",".join(server.record.grpc_target for server in servers)
    large = encode(np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8), "PNG")
    with calling(target, (photos[0], large) * (CLIENTS // 2), channel_options()) as outcomes:
        while outcomes["OK"] < CALLS / 3:
            time.sleep(0.05)
        assert all(connections(server) for server in servers)
        servers[0].signal(signal.SIGTERM)
        assert servers[0].process.wait(PATIENCE) == 0
        while outcomes.total() < CALLS:
            time.sleep(0.05)
    assert set(outcomes) == {"OK"}
