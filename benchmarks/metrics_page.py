"""A server's own metrics of a run: the difference between two readings of its metrics page."""

from __future__ import annotations

import math
from typing import Any

import httpx

from benchmarks.counters import Histogram, Snapshot, added
from benchmarks.errors import MetricsUnreachable


def read_metrics(url: str) -> Snapshot:
    """One reading of a metrics page; raises `MetricsUnreachable` when there is none at `url`."""
    try:
        answer = httpx.get(url, timeout=10)
        answer.raise_for_status()
        return Snapshot.parse(answer.text)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise MetricsUnreachable(f"{url}: no metrics there ({error or type(error).__name__})") from None


def between(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """A server's metrics between two readings, as JSON values: times in milliseconds, photos and errors counted.

    request: from arrival to answer, as the frontend saw it; handled: requests that reached the handler; stages: time that a
    request spent in each; mean_batch: photos in one run of the model; photos: by outcome; errors: by code.
    """

    def moved(name: str, **labels: str) -> Histogram:
        return after.histogram(name, **labels) - before.histogram(name, **labels)

    stages = after.values("unmask_stage_seconds", "stage")
    times = {stage: moved("unmask_stage_seconds", stage=stage) for stage in stages}
    batches = moved("unmask_batch_photos")
    return {
        "request": _times(moved("unmask_request_duration_seconds")),
        "handled": int(times["read"].count) if "read" in times else 0,
        "stages": {stage: _times(histogram) for stage, histogram in times.items()},
        "mean_batch": round(batches.mean, 2) if batches.count else None,
        "errors": _counts(before, after, "unmask_photo_errors", "code"),
        "photos": _counts(before, after, "unmask_photos", "outcome"),
    }


def _counts(before: Snapshot, after: Snapshot, name: str, label: str) -> dict[str, int]:
    return {key: int(n) for key, n in added(before.counts(name, label), after.counts(name, label)).items()}


def _times(histogram: Histogram) -> dict[str, float | int | None]:
    values = {"mean": histogram.mean, "p50": histogram.quantile(0.5), "p99": histogram.quantile(0.99)}
    return {
        "count": int(histogram.count),
        **{key: None if math.isnan(value) else round(1e3 * value, 3) for key, value in values.items()},
    }
