"""Requests through the whole server before it is ready, so that the first client waits no longer than the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from io import BytesIO

from PIL import Image

from serve.client.client import GrpcClient, RestClient
from serve.errors import StartupFailed
from serve.record import Record

# On each connection: the JVM loads and compiles what answers a request while it answers the first ones.
REQUESTS = 3


def warm_up(record: Record, token: str, connections: int, stop: threading.Event) -> None:
    """Send a plain photo over REST and gRPC; ends early when `stop` is set.

    token: of a server that requires one. connections: of each protocol; each goes to the next of the JVM's threads, which
    then allocates its buffers. Nothing counts these requests: the workers and the supervisor begin to count when this is over.
    Raises `StartupFailed` when the server gives no verdict, `ServerUnreachable` when it does not answer.
    """
    out = BytesIO()
    Image.linear_gradient("L").convert("RGB").save(out, "JPEG")
    protocols: tuple[Callable[[], RestClient | GrpcClient], ...] = (
        lambda: RestClient(record.rest_url, token=token),
        lambda: GrpcClient(record.grpc_target, token=token),
    )
    for connect in protocols * connections:
        with closing(connect()) as client:
            for _ in range(REQUESTS):
                if stop.is_set():
                    return
                verdict = client.predict(out.getvalue())
                if not verdict["ok"]:
                    error = verdict["error"]
                    raise StartupFailed(f"the server gives no verdict on a plain photo: {error['message']} [{error['code']}]")
