"""The capacity of a server: the highest rate at which it keeps to a limit of latency, found by bisection with open loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.errors import GeneratorSaturated, OverLimit
from benchmarks.load.open_loop import OpenSamples

FIRST_RATE = 5.0  # requests per second; the answers tell about where to look
LOWEST_RATE = 0.5
NARROWLY = 2.0  # a p99 up to so many times the limit may have been the machine's: the rate is tried once more


@dataclass(frozen=True)
class Step:
    """A rate that was tried. p50, p99: of right answers, in milliseconds, infinite without any. too_high: why the rate is too
    high, "" when it is not."""

    rate: float
    p50: float
    p99: float
    failures: int
    too_high: str

    def __str__(self) -> str:
        return f"{self.rate:.1f}/s: p50 {self.p50:.1f} ms, p99 {self.p99:.1f} ms, {self.too_high or 'within the limit'}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values; null for what is infinite."""
        times = {"p50_ms": self.p50, "p99_ms": self.p99}
        return {
            "rate": round(self.rate, 2),
            **{name: round(ms, 3) if math.isfinite(ms) else None for name, ms in times.items()},
            "failures": self.failures,
            "too_high": self.too_high,
        }


@dataclass(frozen=True)
class Capacity:
    """best: the step with the highest rate within the limit. above: that of the lowest rate that was too high. steps: all."""

    limit_ms: float
    best: Step
    above: Step
    steps: tuple[Step, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "requests_per_second": round(self.best.rate, 2),
            "limit_p99_ms": self.limit_ms,
            "best": self.best.to_dict(),
            "above": self.above.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
        }


def find_capacity(
    send: Callable[[float], OpenSamples], limit_ms: float, *, within: float = 0.05, say: Callable[[str], None] = print
) -> Capacity:
    """The highest rate with p99 <= `limit_ms` milliseconds, every request answered, and every answer right.

    send: an open loop at so many requests per second. within: the relative width at which the bisection ends. say: is told of
    each step. Doubles the rate until it is too high, beginning with half of what one client reaches, and then bisects.
    Raises `OverLimit` when even the lowest rate is too high, `GeneratorSaturated` when the load generator is the limit.
    """
    steps: list[Step] = []

    def attempt(rate: float) -> Step:
        step = _tried(send, rate, limit_ms, steps)
        if step.too_high and step.p99 <= NARROWLY * limit_ms and not step.failures:
            say(f"{step}; once more")
            step = _tried(send, rate, limit_ms, steps)
        steps.append(step)
        say(str(step))
        return step

    low, high = attempt(FIRST_RATE), None
    while low.too_high:
        high = low
        if low.rate / 2 < LOWEST_RATE:
            raise OverLimit(f"p99 is above {limit_ms:g} ms even at {low.rate:g} requests per second: {low.too_high}")
        low = attempt(low.rate / 2)
    rate = max(2 * low.rate, 500 / low.p50)
    while high is None:
        step = attempt(rate)
        low, high, rate = (low, step, rate) if step.too_high else (step, None, 2 * rate)
    while high.rate > (1 + within) * low.rate:
        step = attempt(math.sqrt(low.rate * high.rate))
        low, high = (low, step) if step.too_high else (step, high)
    return Capacity(limit_ms, low, high, tuple(steps))


def _tried(send: Callable[[float], OpenSamples], rate: float, limit_ms: float, before: list[Step]) -> Step:
    try:
        samples = send(rate)
    except GeneratorSaturated as error:
        best = max((step.rate for step in before if not step.too_high), default=0.0)
        raise GeneratorSaturated(
            f"the server keeps to the limit at {best:.1f} requests per second, and above that the load generator is the "
            f"limit, so the capacity can't be told: {error.message}"
        ) from None
    took = samples.latency()
    p50, p99 = (float(q) for q in np.percentile(took, (50, 99))) if took else (math.inf, math.inf)
    failed = [problem for problem in samples.problems if problem]
    too_high = f"p99 is above {limit_ms:g} ms" if p99 > limit_ms else ""
    if failed:
        reason = max(set(failed), key=failed.count)
        too_high = f"{len(failed)} of {len(samples.problems)} failed, most often: {reason}"
    return Step(rate, p50, p99, len(failed), too_high)
