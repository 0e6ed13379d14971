"""Run a load generator in a process of its own for some seconds, and read its samples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import summary
from benchmarks.load.process import FINISH_SECONDS, run_process

LOCUSTFILE = Path(__file__).resolve().with_name("locustfile.py")
USERS = {"rest": "RestUser", "grpc": "GrpcUser"}


@dataclass(frozen=True)
class Target:
    """Where a server listens. rest: URL. grpc: host:port."""

    rest: str
    grpc: str


@dataclass(frozen=True)
class Samples:
    """Samples of a load, one entry a request: start in seconds since the epoch, latency, and the problem or "".

    cpu_seconds: CPU time of the load generator. machine_cpu_seconds: CPU time of all processes of its machine meanwhile.
    """

    started: list[float]
    milliseconds: list[float]
    problems: list[str]
    cpu_seconds: float
    machine_cpu_seconds: float

    @property
    def seconds(self) -> float:
        """From the first request's start to the last one's end."""
        return max(self._finished()) - min(self.started) if self.started else 0.0

    def _finished(self) -> list[float]:
        return [t + ms / 1e3 for t, ms in zip(self.started, self.milliseconds, strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """A report's numbers as JSON values: requests per second, latency in milliseconds, CPU milliseconds per request."""
        first = min(self.started, default=0.0)
        finished = [t - first for t in self._finished()]
        rates = summary.thirds(finished, self.seconds) if finished else [0.0] * 3
        wrong = Counter(problem for problem in self.problems if problem)
        return {
            "requests": len(self.started),
            "failures": wrong.total(),
            "failure_reasons": dict(wrong.most_common()),
            "seconds": round(self.seconds, 3),
            "requests_per_second": round(len(finished) / self.seconds, 2) if finished else 0.0,
            "latency_ms": summary.latency(self.milliseconds),
            "thirds": rates,
            "steady": summary.is_steady(rates),
            "load_generator_cpu_ms": round(1e3 * self.cpu_seconds / len(finished), 3) if finished else None,
            "timeline": summary.timeline(finished, self.milliseconds),
            "percentiles": summary.percentile_curve(self.milliseconds),
        }


def run_load(
    target: Target,
    protocol: str,
    *,
    users: int,
    seconds: int,
    photos: Path | None,
    photo_count: int,
    known: Mapping[str, float],
    label: str,
    lean: bool = False,
) -> Samples:
    """Send photos from `users` clients for `seconds`; each client waits for its answer before it sends the next photo.

    protocol: `rest` or `grpc`. known: calibrated probability by photo name, where it is known. label: of the progress bar.
    lean: use `benchmarks.load.closed_loop`, which takes little CPU time and speaks only REST, instead of Locust.
    Raises `LoadFailed` when the load generator fails. Its process is ended on Ctrl-C.
    """
    with TemporaryDirectory(prefix="unmask-load-") as scratch:
        samples, answers = Path(scratch) / "samples.json", Path(scratch) / "known.json"
        answers.write_text(json.dumps(dict(known)), encoding="utf-8")
        generator = (
            ["benchmarks.load.closed_loop", "--seconds", str(seconds)] if lean else _locust(target, protocol, users, seconds)
        )
        common = ["--host", target.rest, "--users", str(users), "--known", str(answers), "--samples", str(samples)]
        common += ["--photo-count", str(photo_count), *(["--photos", str(photos.resolve())] if photos else [])]
        written = run_process([*generator, *common], samples, scratch=Path(scratch), seconds=seconds, label=label)
        return Samples(**json.loads(written))


def _locust(target: Target, protocol: str, users: int, seconds: int) -> list[str]:
    command = ["locust", USERS[protocol], "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    command += ["--grpc-address", target.grpc, "--spawn-rate", str(users), "--run-time", f"{seconds}s"]
    return [*command, "--stop-timeout", str(FINISH_SECONDS), "--exit-code-on-error", "0", "--loglevel", "WARNING"]
