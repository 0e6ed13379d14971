"""Summaries of samples: percentiles, rates, and whether the run was steady."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

STEADY_WITHIN = 0.10


def latency(milliseconds: Sequence[float]) -> dict[str, float]:
    """Mean, median, 90th and 99th percentile and maximum, in milliseconds; empty without samples."""
    if not len(milliseconds):
        return {}
    p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
    values = {"mean": np.mean(milliseconds), "p50": p50, "p90": p90, "p99": p99, "max": np.max(milliseconds)}
    return {name: round(float(value), 3) for name, value in values.items()}


def thirds(finished: Sequence[float], seconds: float) -> list[float]:
    """Completions per second in each third of a run of `seconds`; `finished` counts seconds from its start."""
    counts, _ = np.histogram(finished, bins=3, range=(0, seconds))
    return [round(float(n) / (seconds / 3), 2) for n in counts]


def is_steady(rates: Sequence[float]) -> bool:
    """Whether no rate is farther than 10 % from their mean."""
    mean = sum(rates) / len(rates)
    return bool(mean > 0 and max(abs(rate - mean) for rate in rates) <= STEADY_WITHIN * mean)


def timeline(finished: Sequence[float], milliseconds: Sequence[float]) -> list[dict[str, float]]:
    """Requests, median and 99th percentile of latency in each whole second of a run; a last part second is left out."""
    ends, took = np.asarray(finished), np.asarray(milliseconds)
    rows = []
    for second in range(int(ends.max()) if len(ends) else 0):
        inside = took[(ends >= second) & (ends < second + 1)]
        p50, p99 = np.percentile(inside, (50, 99)) if len(inside) else (np.nan, np.nan)
        row = {"second": second, "requests": len(inside), "p50": float(p50), "p99": float(p99)}
        rows.append({k: round(v, 3) for k, v in row.items() if not np.isnan(v)})
    return rows


def percentile_curve(milliseconds: Sequence[float]) -> list[tuple[float, float]]:
    """Pairs (percentile, milliseconds), up to the highest percentile that so many samples can estimate."""
    n = len(milliseconds)
    asked = (0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99)
    told = [q for q in asked if n * (1 - q / 100) >= 1]
    return [(q, round(float(v), 3)) for q, v in zip(told, np.percentile(milliseconds, told), strict=True)] if told else []
