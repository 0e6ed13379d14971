"""Locust with our locustfile as a person starts it: from any folder, with workers, and with its numbers as metrics."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.counters import Snapshot
from tests.conftest import ROOT
from tests.waiting import PATIENCE, awaited

pytestmark = pytest.mark.serve

LOCUSTFILE = ROOT / "benchmarks" / "load" / "locustfile.py"


@contextmanager
def locust(folder: Path, log: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Locust in `folder`, where nothing but its own path leads to our modules; and its log."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = folder / log
    with path.open("wb") as output:
        command = [sys.executable, "-P"] if sys.version_info >= (3, 11) else [sys.executable]
        process = subprocess.Popen(
            [*command, "-m", "locust", "-f", str(LOCUSTFILE), "--photo-count", "4", *options],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            yield process, path
        finally:
            process.kill()
            process.wait()


def printed(pattern: str, process: subprocess.Popen[bytes], log: Path) -> re.Match[str]:
    def found() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text(errors="replace")
        return re.search(pattern, log.read_text(errors="replace"))

    return awaited(found, hint=lambda: log.read_text(errors="replace"))


def test_without_a_grpc_address_its_grpc_users_say_so_and_the_metrics_do_too(server, tmp_path: Path):
    host = f"http://127.0.0.1:{server.record.ports['rest_port']}"
    options = ["--headless", "-u", "4", "-r", "4", "--host", host, "--prometheus-port", "0", "--only-summary"]
    with locust(tmp_path, "log", *options) as (process, log):
        url = printed(r"metrics: (http://127\.0\.0\.1:\d+/metrics)", process, log)[1]

        def both_counted(text: str) -> bool:
            counts = Snapshot.parse(text).counts("locust_requests", "protocol")
            return counts.get("REST", 0) > 5 and bool(counts.get("gRPC"))

        text = awaited(lambda: httpx.get(url, trust_env=False).text, both_counted)
        process.terminate()
        assert process.wait(PATIENCE) == 1, log.read_text()  # some requests failed
    page = Snapshot.parse(text)
    assert page.counts("locust_requests", "protocol")["gRPC"] == 2
    assert page.counts("locust_failures", "protocol") == {"REST": 0, "gRPC": 2}
    assert page.counts("locust_errors", "error") == {"no gRPC address: give --grpc-address host:port, or RestUser alone": 2}
    took = page.histogram("locust_response_seconds", protocol="REST")
    assert took.count == page.counts("locust_requests", "protocol")["REST"]
    assert took.mean > 0
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"locust_users", "locust_running", "locust_requests_per_second", "locust_failures_per_second"} <= names
    assert "no gRPC address" in log.read_text()


def test_a_grpc_address_where_nothing_listens_is_said_too(server, deaf_port: int, tmp_path: Path):
    host = f"http://127.0.0.1:{server.record.ports['rest_port']}"
    options = ["GrpcUser", "--headless", "-u", "1", "--host", host, "--grpc-address", f"127.0.0.1:{deaf_port}", "-t", "8s"]
    with locust(tmp_path, "log", *options) as (process, log):
        assert process.wait(PATIENCE) == 1
        assert f"no gRPC connection to 127.0.0.1:{deaf_port} within 5 s" in log.read_text()


def test_a_master_and_two_workers_load_over_both_protocols(server, tmp_path: Path):
    ports = server.record.ports
    bind = str(free_port())
    master = ["--master", "--expect-workers", "2", "--master-bind-host", "127.0.0.1", "--master-bind-port", bind, "--headless"]
    master += ["-u", "4", "-r", "4", "-t", "5s", "--stop-timeout", "20", "--only-summary", "--exit-code-on-error", "0"]
    master += ["--host", f"http://127.0.0.1:{ports['rest_port']}", "--grpc-address", f"127.0.0.1:{ports['grpc_port']}"]
    with ExitStack() as stack:
        first, log = stack.enter_context(locust(tmp_path, "master", *master, "--samples", str(tmp_path / "samples.json")))
        workers = [
            stack.enter_context(locust(tmp_path, f"worker-{n}", "--worker", "--master-port", bind))[0] for n in range(2)
        ]
        assert first.wait(PATIENCE) == 0, log.read_text()
        for number, worker in enumerate(workers):
            assert worker.wait(PATIENCE) == 0, (tmp_path / f"worker-{number}").read_text()
    parts = [json.loads((tmp_path / f"samples-{n}.json").read_text()) for n in range(2)]
    assert all(part["started"] for part in parts)
    assert {problem for part in parts for problem in part["problems"]} == {""}


def free_port() -> int:
    """A port below those that the system hands out by itself, so that nobody else is given it meanwhile."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@pytest.mark.parametrize(
    ("error", "label"),
    [
        ("WrongAnswer('status 503, error overloaded')", "status 503, error overloaded"),
        ('WrongAnswer("it\'s wrong")', "it's wrong"),
        ("ConnectionRefusedError", "ConnectionRefusedError"),
        (
            "WrongAnswer('calibrated is not that of Anna, 1.jpg, 0.6200, within 0.001')",
            "calibrated is not that of its photo, within 0.001",
        ),
    ],
)
def test_a_label_has_neither_a_class_nor_a_photo_in_it(error: str, label: str):
    from benchmarks.load.locust_metrics import reason

    assert reason(error) == label


def test_a_histogram_counts_whole_milliseconds_as_locust_keeps_them():
    from benchmarks.load.locust_metrics import LocustCollector

    entry = SimpleNamespace(
        method="POST",
        name="REST",
        num_requests=6,
        num_failures=1,
        current_rps=2.0,
        current_fail_per_sec=0.0,
        response_times={5: 3, 6: 1, 300: 1, 40_000: 1},
        total_response_time=40_321,
    )
    stats = SimpleNamespace(entries={"REST": entry}, errors={})
    runner = SimpleNamespace(stats=stats, user_count=3, state="running")
    families = {family.name: family for family in LocustCollector(runner).collect()}
    buckets = {s.labels["le"]: s.value for s in families["locust_response_seconds"].samples if s.name.endswith("_bucket")}
    assert (buckets["0.005"], buckets["0.01"], buckets["0.2"], buckets["0.3"], buckets["30.0"]) == (3, 4, 4, 5, 5)
    assert buckets["+Inf"] == 6
    assert families["locust_users"].samples[0].value == 3
    assert "locust_workers" not in families
