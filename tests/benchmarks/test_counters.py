"""Histograms and counters read from a metrics page, and what was added between two readings."""

from __future__ import annotations

import math

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from benchmarks.counters import Snapshot, added
from benchmarks.errors import MetricsUnreachable
from benchmarks.metrics_page import between, read_metrics

BOUNDS = tuple(float(b) for b in np.arange(0.01, 1.0, 0.01))


class Page:
    """A metrics page such as a server's, from prometheus_client itself."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.seconds = Histogram("unmask_request_duration_seconds", "x", buckets=BOUNDS, registry=self.registry)
        self.stage = Histogram("unmask_stage_seconds", "x", ["stage"], buckets=BOUNDS, registry=self.registry)
        self.errors = Counter("unmask_photo_errors", "x", ["code"], registry=self.registry)

    def read(self) -> Snapshot:
        return Snapshot.parse(generate_latest(self.registry).decode())


def test_only_what_came_between_two_readings_counts() -> None:
    page = Page()
    for _ in range(50):
        page.seconds.observe(0.9)
    page.errors.labels("old").inc()
    before = page.read()
    for _ in range(20):
        page.seconds.observe(0.1)
    page.errors.labels("empty_image").inc(3)
    result = between(before, page.read())
    assert result["request"]["count"] == 20
    assert result["request"]["mean"] == pytest.approx(100, abs=0.01)
    assert 90 <= result["request"]["p50"] <= 110
    assert result["request"]["p99"] <= 110
    assert result["errors"] == {"empty_image": 3}


def test_quantiles_agree_with_the_samples_to_a_bucket() -> None:
    page = Page()
    values = np.random.default_rng(0).gamma(4, 0.05, 5000).clip(max=0.98)
    for value in values:
        page.seconds.observe(float(value))
    histogram = page.read().histogram("unmask_request_duration_seconds")
    for q in (0.01, 0.25, 0.5, 0.9, 0.99):
        assert histogram.quantile(q) == pytest.approx(np.quantile(values, q), abs=0.0101)
    assert histogram.mean == pytest.approx(values.mean())


def test_quantiles_interpolate_inside_a_bucket_as_promql_does() -> None:
    text = (
        "# TYPE t histogram\n"
        't_bucket{le="1"} 10\nt_bucket{le="2"} 10\nt_bucket{le="4"} 30\nt_bucket{le="+Inf"} 40\nt_sum 99\nt_count 40\n'
    )
    histogram = Snapshot.parse(text).histogram("t")
    assert histogram.count == 40
    assert histogram.quantile(0.125) == pytest.approx(0.5)  # 5 of the 10 between 0 and 1
    assert histogram.quantile(0.25) == pytest.approx(1)
    assert histogram.quantile(0.5) == pytest.approx(3)  # 10 of the 20 between 2 and 4
    assert histogram.quantile(0.9) == 4  # beyond the last finite bound nothing more is known


def test_series_that_differ_in_other_labels_are_summed() -> None:
    text = "# TYPE t histogram\n" + "".join(
        f't_bucket{{stage="{s}",pid="{p}",le="1"}} {n}\nt_bucket{{stage="{s}",pid="{p}",le="+Inf"}} {n}\n'
        f't_sum{{stage="{s}",pid="{p}"}} {n}\nt_count{{stage="{s}",pid="{p}"}} {n}\n'
        for s, p, n in (("decode", 1, 3), ("decode", 2, 4), ("inference", 1, 5))
    )
    snapshot = Snapshot.parse(text)
    assert snapshot.histogram("t", stage="decode").count == 7
    assert snapshot.histogram("t").count == 12
    assert snapshot.values("t", "stage") == ["decode", "inference"]


def test_stages_are_told_apart_and_an_idle_one_has_no_times() -> None:
    page = Page()
    page.stage.labels("postprocess")
    before = page.read()
    page.stage.labels("decode").observe(0.005)
    stages = between(before, page.read())["stages"]
    assert stages["decode"]["count"] == 1
    assert stages["postprocess"] == {"count": 0, "mean": None, "p50": None, "p99": None}


def test_a_histogram_that_is_not_there_is_empty() -> None:
    histogram = Snapshot.parse("").histogram("nothing")
    assert histogram.count == 0
    assert math.isnan(histogram.quantile(0.5))


def test_counters_that_did_not_move_are_left_out() -> None:
    assert added({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 5.0, "c": 1.0}) == {"b": 3.0, "c": 1.0}


def test_a_missing_metrics_page_is_one_clear_error(deaf_port: int) -> None:
    with pytest.raises(MetricsUnreachable, match=rf"127\.0\.0\.1:{deaf_port}/metrics: no metrics there"):
        read_metrics(f"http://127.0.0.1:{deaf_port}/metrics")
