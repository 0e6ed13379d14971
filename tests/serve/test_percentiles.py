"""Prometheus says the percentile that the clients of an open loop measured, at half of what the server can do."""

from __future__ import annotations

import shutil
import time
from bisect import bisect_left
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load.generator import Target
from benchmarks.load.open_loop import open_loop
from serve.records.metrics import SECONDS
from tests.faults.load import Clients
from tests.prometheus import Prometheus

DURATIONS = [pytest.param(4, id="short"), pytest.param(30, id="long", marks=pytest.mark.faults)]  # seconds
BUCKET = "unmask_request_duration_seconds_bucket"


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
@pytest.mark.parametrize("seconds", DURATIONS)
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_prometheus_and_the_clients_agree_on_the_99th_percentile(server, photo_files, photos, tmp_path, protocol, seconds):
    record, target = server.record, Target(server.record.rest_url, server.record.grpc_target)
    prometheus = Prometheus(tmp_path / "prometheus", 1)
    try:
        prometheus.watch(record.supervisor_url)
        prometheus.awaited("unmask_ready", "the first scrape")
        with Clients(record.rest_url, record.grpc_target, photos, **{protocol: 8}) as clients:
            time.sleep(seconds / 2)
        rate = len(clients.latencies) / seconds  # in half of the time: half of the capacity
        prometheus.scrapes(3)
        begun = time.monotonic()
        samples = open_loop(target, protocol, rate, seconds, photos=Path(photo_files[0]).parent, connections=64, strict=False)
        prometheus.scrapes(3)
        window = f"{1000 * (time.monotonic() - begun):.0f}ms"
        seen = prometheus.query(
            f'histogram_quantile(0.99, sum by (le) (increase({BUCKET}{{protocol="{protocol}"}}[{window}])))'
        )
    finally:
        prometheus.close()
    felt = float(np.percentile(samples.latency(), 99)) / 1000
    assert seen is not None
    ours, theirs = bisect_left(SECONDS, seen), bisect_left(SECONDS, felt)
    # A busy machine makes clients late, and that is theirs; it can't make an answer faster than it was given.
    apart = 1 if samples.cpu_share < 0.5 and np.percentile(samples.late_ms, 99) < 2 else len(SECONDS)
    assert -1 <= theirs - ours <= apart, (seen, felt)
