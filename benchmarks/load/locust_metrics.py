"""Locust's numbers as Prometheus metrics, on a port of their own: those of the master where there are workers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from serve.settings import LOOPBACK

if TYPE_CHECKING:
    from locust.runners import Runner
    from locust.stats import StatsEntry

BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)
LABELS = ("protocol", "name")
_PHOTO = re.compile(r"is not that of .*, \d\.\d+, within")
_CLASS = re.compile(r"^\w+\(['\"](.*)['\"]\)$", re.DOTALL)


class LocustCollector(Collector):
    """Reads a runner's statistics whenever Prometheus asks."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def collect(self) -> Iterable[Metric]:
        """All metrics; those by request have the labels protocol and name."""
        runner, entries = self._runner, list(self._runner.stats.entries.values())
        yield GaugeMetricFamily("locust_users", "Users that send requests.", runner.user_count)
        running = runner.state in ("spawning", "running")
        yield GaugeMetricFamily("locust_running", "1 while a test runs.", float(running))
        if hasattr(runner, "clients"):  # the master
            workers = GaugeMetricFamily("locust_workers", "Worker processes by state.", labels=["state"])
            for state in ("ready", "spawning", "running", "missing"):
                workers.add_metric([state], len(getattr(runner.clients, state)))
            yield workers
        yield _counter("locust_requests", "Requests.", entries, "num_requests")
        yield _counter("locust_failures", "Requests that failed, or whose answer was wrong.", entries, "num_failures")
        yield self._errors()
        yield _gauge("locust_requests_per_second", "Requests per second in the last ten seconds.", entries, "current_rps")
        yield _gauge(
            "locust_failures_per_second", "Failures per second in the last ten seconds.", entries, "current_fail_per_sec"
        )
        times = HistogramMetricFamily("locust_response_seconds", "From sending a request to its whole answer.", labels=LABELS)
        for entry in entries:
            times.add_metric(
                [_protocol(entry.method), entry.name], _buckets(entry.response_times), entry.total_response_time / 1e3
            )
        yield times

    def _errors(self) -> Metric:
        family = CounterMetricFamily("locust_errors", "Failures by reason.", labels=[*LABELS, "error"])
        counts: dict[tuple[str, str, str], int] = {}
        for error in self._runner.stats.errors.values():
            key = (_protocol(error.method), error.name, reason(str(error.error)))
            counts[key] = counts.get(key, 0) + error.occurrences
        for labels, count in counts.items():
            family.add_metric(labels, count)
        return family


def reason(error: str) -> str:
    """An error as the value of a label: without its class, and without the name of a photo."""
    text = found[1] if (found := _CLASS.match(error)) else error
    return _PHOTO.sub("is not that of its photo, within", text).partition("\n")[0][:200]


def serve_metrics(runner: Runner, port: int, host: str = LOOPBACK) -> int:
    """Serve the metrics at `host`; returns the port, which is a free one for 0."""
    registry = CollectorRegistry()
    registry.register(LocustCollector(runner))
    server, _ = start_http_server(port, host, registry)
    return int(server.server_port)


def _protocol(method: str) -> str:
    return "gRPC" if method == "gRPC" else "REST"


def _counter(name: str, text: str, entries: Iterable[StatsEntry], attribute: str) -> Metric:
    family = CounterMetricFamily(name, text, labels=LABELS)
    for entry in entries:
        family.add_metric([_protocol(entry.method), entry.name], getattr(entry, attribute))
    return family


def _gauge(name: str, text: str, entries: Iterable[StatsEntry], attribute: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=LABELS)
    for entry in entries:
        family.add_metric([_protocol(entry.method), entry.name], getattr(entry, attribute))
    return family


def _buckets(response_times: dict[int, int]) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound; Locust keeps whole milliseconds, and two digits of longer times."""
    times = list(response_times.items())
    bounds = [(str(bound), sum(count for ms, count in times if ms <= 1e3 * bound)) for bound in BUCKETS]
    return [*((bound, float(count)) for bound, count in bounds), ("+Inf", float(sum(count for _, count in times)))]
