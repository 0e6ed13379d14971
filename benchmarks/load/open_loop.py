"""The open loop: requests sent at planned times, whatever became of the ones before, and latency from the plan.

A closed loop waits for each answer before it sends the next request, so while a server stalls it sends nothing, and the
requests that its users would have sent meanwhile are missing from its percentiles ("coordinated omission", G. Tene, 2013).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import summary
from benchmarks.errors import GeneratorSaturated
from benchmarks.load.generator import Target
from benchmarks.load.mix import Mix
from benchmarks.load.process import FINISH_SECONDS, run_process

ARRIVALS = ("constant", "poisson")
DROPPED, NOT_SENT = "dropped", ("dropped", "connection refused", "connection failed")
LOST = ("connection refused", "connection reset", "connection failed", "timed out", "not HTTP", "UNAVAILABLE")
OVERLOADED = ("503", "RESOURCE_EXHAUSTED")
MOST_CPU = 0.9  # of one CPU
LATE_MS = 10.0  # later than this counts as late, and a p99 of lateness below it is never too much
HOPELESS_MS = 50.0  # a median lateness above this means that the rate asked for is not the rate that was sent


@dataclass(frozen=True)
class OpenSamples:
    """Samples of an open loop, one entry a planned request.

    planned: seconds since the epoch. late_ms: from the plan to the moment that the generator came to it, its own delay.
    sent_ms: from the plan to the sending, with the wait for a free connection. milliseconds: from the plan to the answer.
    statuses: HTTP status or gRPC code, `dropped`, or what broke the connection. retry_after: as the server sent it, seconds
    over REST and milliseconds over gRPC.
    problems: "" for a right answer. verdicts: right answers by label. cpu_share: CPU time of the generator over the time of
    sending. rate: as asked.
    """

    rate: float
    planned: list[float]
    late_ms: list[float]
    sent_ms: list[float]
    milliseconds: list[float]
    statuses: list[str]
    kinds: list[str]
    retry_after: list[str]
    problems: list[str]
    verdicts: dict[str, int]
    cpu_share: float
    cpu_seconds: float
    machine_cpu_seconds: float

    @property
    def started(self) -> list[float]:
        """When each request was planned, in seconds since the epoch."""
        return self.planned

    @property
    def counts(self) -> Counter[str]:
        """Planned requests by status."""
        return Counter(self.statuses)

    @property
    def seconds(self) -> float:
        """From the first planned request to the last end."""
        ends = [t + ms / 1e3 for t, ms in zip(self.planned, self.milliseconds, strict=True)]
        return max(ends) - min(self.planned) if ends else 0.0

    def latency(self, *statuses: str) -> list[float]:
        """Milliseconds from the plan to the answer of requests with one of `statuses`; without any, of all right answers."""
        rows = zip(self.milliseconds, self.statuses, self.problems, strict=True)
        return [ms for ms, status, problem in rows if (status in statuses if statuses else not problem)]

    def to_dict(self) -> dict[str, Any]:
        """A report's numbers as JSON values, named as those of a closed loop; latencies are those of right answers."""
        ended = [
            (t - self.planned[0] + ms / 1e3, ms)
            for t, ms, problem in zip(self.planned, self.milliseconds, self.problems, strict=True)
            if not problem
        ]
        finished, took = [end for end, _ in ended], [ms for _, ms in ended]
        rates = summary.thirds(finished, self.seconds) if finished else [0.0] * 3
        wrong, counts = Counter(problem for problem in self.problems if problem), self.counts
        sent = len(self.planned) - sum(counts[status] for status in NOT_SENT)
        refused = self.latency(*OVERLOADED)
        return {
            "loop": "open",
            "requests": sent,
            "planned": len(self.planned),
            "dropped": counts[DROPPED],
            "offered_per_second": round(self.rate, 2),
            "failures": wrong.total(),
            "failure_reasons": dict(wrong.most_common()),
            "statuses": dict(counts.most_common()),
            "connection_errors": sum(counts[status] for status in LOST),
            "kinds": dict(Counter(self.kinds).most_common()),
            "verdicts": self.verdicts,
            "seconds": round(self.seconds, 3),
            "requests_per_second": round(len(finished) / self.seconds, 2) if finished else 0.0,
            "latency_ms": summary.latency(took),
            "refused_latency_ms": summary.latency(refused),
            "refused_with_retry_after": sum(
                bool(after) for after, status in zip(self.retry_after, self.statuses, strict=True) if status in OVERLOADED
            ),
            "thirds": rates,
            "steady": summary.is_steady(rates),
            "load_generator_cpu_ms": round(1e3 * self.cpu_seconds / sent, 3) if sent else None,
            "timeline": summary.timeline(finished, took),
            "percentiles": summary.percentile_curve(took),
            "generator": {
                "cpu_share": round(self.cpu_share, 3),
                "late_share": round(float(np.mean(np.asarray(self.late_ms) > LATE_MS)), 4),
                "late_ms": summary.latency(self.late_ms),
            },
        }


def open_loop(
    target: Target,
    protocol: str,
    rate: float,
    seconds: float,
    *,
    arrivals: str = "constant",
    mix: Mix | None = None,
    known: Mapping[str, float] | None = None,
    threshold: float = 0.5,
    photos: Path | None = None,
    photo_count: int = 100,
    connections: int = 512,
    patience: float = 1.0,
    timeout: float = 60.0,
    seed: int = 0,
    label: str = "open loop",
    strict: bool = True,
) -> OpenSamples:
    """Send `rate` requests per second for `seconds`, and check every answer.

    protocol: `rest` or `grpc`. arrivals: `constant` gaps, or `poisson`, as independent users come. mix: kinds of requests, one
    photo each by default. known: calibrated probability by photo name, where it is known; with both labels in it they take
    turns. connections: requests in flight at the most. patience: seconds that a request waits for one of them before it is
    dropped. timeout: seconds for an answer. label: of the progress bar.
    Raises `GeneratorSaturated` when the generator could not keep to the plan (without `strict` the samples alone say so),
    `LoadFailed` when it fails.
    """
    settings = {
        "rest": target.rest,
        "grpc": target.grpc,
        "protocol": protocol,
        "rate": rate,
        "seconds": seconds,
        "arrivals": arrivals,
        "mix": asdict(mix or Mix()),
        "known": dict(known or {}),
        "threshold": threshold,
        "photos": str(photos.resolve()) if photos else None,
        "photo_count": photo_count,
        "connections": connections,
        "patience": patience,
        "timeout": timeout,
        "finish": min(timeout, FINISH_SECONDS) + patience,
        "seed": seed,
    }
    with TemporaryDirectory(prefix="unmask-load-") as folder:
        scratch = Path(folder)
        wanted, samples = scratch / "settings.json", scratch / "samples.json"
        wanted.write_text(json.dumps(settings), encoding="utf-8")
        module = ["benchmarks.load.sender", "--settings", str(wanted), "--samples", str(samples)]
        written = run_process(
            module, samples, scratch=scratch, seconds=seconds, label=label, finish=FINISH_SECONDS + 2 * patience + seconds
        )
    found = OpenSamples(rate=rate, **json.loads(written))
    if strict:
        refuse_saturated(found)
    return found


def refuse_saturated(samples: OpenSamples) -> None:
    """Raise `GeneratorSaturated` when the generator used up its CPU, or too much of the latency is its own delay."""
    late = float(np.percentile(samples.late_ms, 99))
    answered = [ms for ms, status in zip(samples.milliseconds, samples.statuses, strict=True) if status != DROPPED]
    tail = float(np.percentile(answered, 99)) if answered else 0.0
    share = float(np.mean(np.asarray(samples.late_ms) > LATE_MS))
    reason = ""
    if samples.cpu_share > MOST_CPU:
        reason = f"it used {samples.cpu_share:.2f} of the one CPU that it can use"
    elif (late > LATE_MS and late > tail / 2) or np.median(samples.late_ms) > HOPELESS_MS:
        reason = f"it came to {100 * share:.0f} % more than {LATE_MS:.0f} ms late (p99 {late:.0f} ms, of {tail:.0f} ms in all)"
    if reason:
        raise GeneratorSaturated(
            f"the load generator can't keep to {samples.rate:g} requests per second: {reason}. Ask for a lower rate, "
            "or give the generator CPUs of its own"
        )
