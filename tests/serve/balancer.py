"""A load balancer as one finds it in front of such servers: requests go in turn to those whose readiness probe is good."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import ClassVar
from urllib.parse import urlsplit

import httpx

PROBE_SECONDS = 0.2


class Balancer:
    """Listens on a free port of 127.0.0.1. backends: asked before each probe, so that servers may come and go; for each its
    predictions URL and that of its readiness probe."""

    def __init__(self, backends: Callable[[], list[tuple[str, str]]]) -> None:
        self._backends = backends
        self._ready: list[str] = []
        self._turn = count()
        self._over = threading.Event()

        class Handler(_Handler):
            balancer = self

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True),
            threading.Thread(target=self._probe, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def next(self) -> str | None:
        """The predictions URL of the next backend, None when none is ready."""
        ready = self._ready
        return ready[next(self._turn) % len(ready)] if ready else None

    def ready(self) -> int:
        """How many backends are ready."""
        return len(self._ready)

    def close(self) -> None:
        """Stop."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    def _probe(self) -> None:
        with httpx.Client(timeout=2, trust_env=False) as client:
            while not self._over.wait(PROBE_SECONDS):
                self._ready = [url for url, probe in self._backends() if _good(client, probe)]


def _good(client: httpx.Client, probe: str) -> bool:
    try:
        return client.get(probe).status_code == 200
    except httpx.HTTPError:
        return False


class _Handler(BaseHTTPRequestHandler):
    balancer: ClassVar[Balancer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.connections: dict[str, HTTPConnection] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = self.balancer.next()
        if url is None:
            return self._answer(502, b"no backend is ready")
        parts = urlsplit(url)
        connection = self.connections.setdefault(url, HTTPConnection(parts.hostname or "", parts.port, timeout=60))
        try:
            connection.request("POST", parts.path, body, {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            return self._answer(response.status, response.read())
        except OSError as error:
            connection.close()
            return self._answer(502, repr(error).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""
