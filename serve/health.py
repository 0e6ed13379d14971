"""The supervisor's HTTP server: `/livez`, `/readyz` and `/metrics`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from serve.errors import PortTaken


@dataclass(frozen=True)
class Health:
    """What the supervisor knows at this moment. `reason` says in a few words why it is not ready."""

    alive: bool
    ready: bool
    reason: str
    workers_ready: int = 0
    workers_wanted: int = 0
    worker_restarts: int = 0
    queue_pending: int = 0
    queue_capacity: int = 0
    draining: bool = False


class Watched(Protocol):
    """What the health server asks."""

    def health(self) -> Health:
        """The health now."""


class SupervisorMetrics:
    """The supervisor's gauges, in the form that prometheus_client collects."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched

    def collect(self) -> Iterable[Metric]:
        """One family for each value."""
        health = self._watched.health()
        gauge = GaugeMetricFamily
        yield gauge("unmask_ready", "Whether the server takes requests (1) or not (0).", value=health.ready)
        yield gauge("unmask_draining", "Whether the server is finishing before it stops.", value=health.draining)
        yield gauge("unmask_workers_ready", "Workers that have loaded the model.", value=health.workers_ready)
        yield gauge("unmask_workers_wanted", "Workers there should be.", value=health.workers_wanted)
        yield gauge("unmask_queue_pending", "Requests that wait for a worker.", value=health.queue_pending)
        yield gauge("unmask_queue_capacity", "Requests that still fit into the queue.", value=health.queue_capacity)
        yield CounterMetricFamily("unmask_worker_restarts", "Workers that had to be replaced.", value=health.worker_restarts)


class HealthServer:
    """Answers in its own thread. Raises `PortTaken` when it can't listen."""

    def __init__(self, host: str, port: int, watched: Watched, metrics: Path) -> None:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(metrics))  # type: ignore[no-untyped-call]
        registry.register(SupervisorMetrics(watched))

        class Handler(_Handler):
            source = watched
            collected = registry

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise PortTaken(f"port {port} (supervisor) is not free on {host} ({error.strerror})") from None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    source: Watched
    collected: CollectorRegistry
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            return self._send(200, generate_latest(self.collected), CONTENT_TYPE_LATEST)
        if path not in ("/livez", "/readyz"):
            return self._send(404, b'{"error": "only /livez, /readyz and /metrics are here"}\n')
        health = self.source.health()
        good = health.alive if path == "/livez" else health.ready
        body = {
            "ok": good,
            "reason": health.reason,
            "workers": {"ready": health.workers_ready, "wanted": health.workers_wanted},
            "queue": {"pending": health.queue_pending, "capacity": health.queue_capacity},
        }
        return self._send(200 if good else 503, json.dumps(body).encode() + b"\n")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def _send(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Do not disclose the version of Python."""
        return "unmask"

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every few seconds and are not worth a line."""
