"""The Prometheus of the tests sees the rules in quick motion, and nothing else of them changed."""

from __future__ import annotations

import pytest

from tests.prometheus import scaled, seconds


def test_durations_are_read_as_prometheus_does():
    assert [seconds(d) for d in ("5m", "1h30m", "250ms", "3d")] == [300, 5400, 0.25, 259_200]


@pytest.mark.parametrize(
    ("query", "quick"),
    [
        ("rate(a[1h])", "rate(a[30000ms])"),
        ("rate(a[5m])", "rate(a[2500ms])"),  # not below what two scrapes need
        ("rate(a[1m])", "rate(a[2000ms])"),
        ("max_over_time(a:rate5m[6h:1m])", "max_over_time(a:rate5m[180000ms:500ms])"),
        ('a offset 1d / a{b="[5x]"}', 'a offset 720000ms / a{b="[5x]"}'),
        ("increase(a[1d:]) > 3600", "increase(a[720000ms:]) > 3600"),
    ],
)
def test_windows_and_offsets_of_a_query_are_divided(query, quick):
    assert scaled(query, 120) == quick
