"""Samples made into numbers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import summary
from benchmarks.load.generator import Samples


def samples(rates: tuple[int, int, int], failures: int = 0) -> Samples:
    """Thirty seconds of requests that took 5 ms, at three rates a second of ten seconds each."""
    started = np.concatenate([10 * i + np.arange(10 * rate) / rate for i, rate in enumerate(rates)])
    problems = ["status 503, error overloaded"] * failures + [""] * (len(started) - failures)
    return Samples(
        [1e9 + float(t) for t in started], [5.0] * len(started), problems, cpu_seconds=6.0, machine_cpu_seconds=50.0
    )


def test_rates_and_latencies_are_those_of_the_samples() -> None:
    report = samples((100, 100, 100), failures=3).to_dict()
    assert (report["requests"], report["failures"]) == (3000, 3)
    assert report["failure_reasons"] == {"status 503, error overloaded": 3}
    assert report["requests_per_second"] == pytest.approx(100, rel=0.01)
    assert report["latency_ms"] == {"mean": 5, "p50": 5, "p90": 5, "p99": 5, "max": 5}
    assert report["load_generator_cpu_ms"] == pytest.approx(2)
    assert sum(row["requests"] for row in report["timeline"]) == pytest.approx(3000, abs=110)


@pytest.mark.parametrize(("rates", "steady"), [((100, 100, 100), True), ((95, 100, 104), True), ((100, 100, 70), False)])
def test_a_run_is_steady_when_its_thirds_are_within_ten_percent(rates: tuple[int, int, int], steady: bool) -> None:
    report = samples(rates).to_dict()
    assert report["thirds"] == pytest.approx(rates, rel=0.02)
    assert report["steady"] is steady


def test_no_requests_at_all_is_a_report_too() -> None:
    report = Samples([], [], [], 0.0, 0.0).to_dict()
    assert (report["requests"], report["requests_per_second"], report["steady"]) == (0, 0, False)


def test_only_percentiles_that_the_samples_can_tell_are_reported() -> None:
    assert summary.percentile_curve([1.0] * 200)[-1][0] == 99.5
    assert summary.percentile_curve([1.0] * 20)[-1][0] == 95
