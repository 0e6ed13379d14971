"""The supervisor's HTTP server: `/livez`, `/readyz`, `/metrics`, and `/feedback`, which takes labels."""

from __future__ import annotations

import gzip
import ipaddress
import json
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted

from detector.errors import UnmaskError
from serve.errors import PortTaken
from serve.logs.log import Emit

MAX_BODY = 2**21  # bytes
FASTEST = 1  # of gzip's levels: a scrape is read once, on the same machine or the next
PATHS = "only /livez, /readyz, /metrics and /feedback are here"


@dataclass(frozen=True)
class Health:
    """What the supervisor knows at this moment.

    reason: in a few words, why the server is not ready, or what is wrong although it is. queue_pending: by version.
    warnings: of each version, what its manifest says against it.
    """

    alive: bool
    ready: bool
    reason: str
    workers_ready: int = 0
    workers_wanted: int = 0
    queue_pending: Mapping[str, int] = field(default_factory=dict)
    queue_limit: int = 0
    draining: bool = False
    warnings: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)

    def to_dict(self, ok: bool) -> dict[str, Any]:
        """The JSON of `/livez` and `/readyz`."""
        return {
            "ok": ok,
            "reason": self.reason,
            "workers": {"ready": self.workers_ready, "wanted": self.workers_wanted},
            "queue": {"pending": sum(self.queue_pending.values()), "limit": self.queue_limit * len(self.queue_pending)},
            "models": {version: {"warnings": list(found)} for version, found in self.warnings.items()},
        }


class HealthServer:
    """Answers in threads of its own.

    health: asked for each probe. registry: what `/metrics` shows. feedback: takes the body of `/feedback`, returns how many
    labels it held, and raises an `UnmaskError` for one that it does not take. emit: logs what should not happen.
    Raises `PortTaken` when it can't listen.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        health: Callable[[], Health],
        registry: CollectorRegistry,
        feedback: Callable[[bytes], int],
        emit: Emit,
    ) -> None:
        class Handler(_Handler):
            pass

        Handler.health, Handler.registry = staticmethod(health), registry
        Handler.feedback, Handler.emit = staticmethod(feedback), staticmethod(emit)
        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise PortTaken(f"port {port} (supervisor) is not free on {host} ({error.strerror})") from None
        self._server.emit = emit
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    emit: Emit

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone, which probes often are, is no error; anything else is one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            self.emit("supervisor_request_failed", "error", reason=f"{type(error).__name__}: {error}")


class _Handler(BaseHTTPRequestHandler):
    health: Callable[[], Health]
    registry: CollectorRegistry
    feedback: Callable[[bytes], int]
    emit: Emit
    protocol_version = "HTTP/1.1"
    timeout = 10
    server: socketserver.BaseServer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            return self._send_metrics()
        if path == "/feedback":
            return self._refuse(405, "post a label to it: POST /feedback", Allow="POST")
        if path not in ("/livez", "/readyz"):
            return self._refuse(404, PATHS)
        health = self.health()
        good = health.alive if path == "/livez" else health.ready
        return self._send_json(200 if good else 503, health.to_dict(good))

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def do_POST(self) -> None:
        self.close_connection = True  # a body that is not read would be taken for the next request
        if self.path.partition("?")[0] != "/feedback":
            return self._refuse(404, PATHS)
        if not ipaddress.ip_address(self.client_address[0]).is_loopback:
            return self._refuse(403, "labels are taken from this machine alone")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            return self._refuse(411, "give the length of the body in Content-Length")
        if int(length) > MAX_BODY:
            return self._refuse(413, f"the body has {length} bytes; {MAX_BODY} are accepted")
        try:
            return self._send_json(200, {"ok": True, "labels": self.feedback(self.rfile.read(int(length)))})
        except UnmaskError as error:
            return self._refuse(422, error.message)

    def _send_metrics(self) -> None:
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        body, more = encode(self.registry), {"Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(self.headers.get("Accept-Encoding", "")):
            body, more["Content-Encoding"] = gzip.compress(body, FASTEST), "gzip"
        self._send(200, body, content_type, **more)

    def _refuse(self, status: int, message: str, **headers: str) -> None:
        self._send_json(status, {"ok": False, "error": message}, **headers)

    def _send_json(self, status: int, values: dict[str, Any], **headers: str) -> None:
        self._send(status, json.dumps(values).encode() + b"\n", "application/json", **headers)

    def _send(self, status: int, body: bytes, content_type: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Do not disclose the version of Python."""
        return "unmask"

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds and are not worth a line."""
