"""The benchmark of a running server: loads by protocol, what clients and server saw of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from benchmarks.load.generator import run_load
from benchmarks.metrics_page import between, read_metrics
from benchmarks.photos import load_photos, refuse_broken
from benchmarks.serving import Server
from detector.scorer import Scorer

NOISY_ABOVE_CPUS = 0.3


class Samples(Protocol):
    """What the load generators' samples have in common."""

    @property
    def started(self) -> list[float]:
        """When each request was sent, or planned, in seconds since the epoch."""

    @property
    def seconds(self) -> float:
        """From the first request's start to the last one's end."""

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the load generator."""

    @property
    def machine_cpu_seconds(self) -> float:
        """CPU time of all processes of its machine meanwhile."""

    def to_dict(self) -> dict[str, Any]:
        """A report's numbers as JSON values."""


@dataclass(frozen=True)
class Load:
    """A load. seconds, warm_up: for each protocol. photos: folder, or None for drawn photos. lean: use the load generator that
    takes little CPU time and speaks only REST, instead of Locust."""

    protocols: Sequence[str]
    users: int
    seconds: int
    warm_up: int
    photos: Path | None
    photo_count: int
    lean: bool = False


def local_answers(model: Path, load: Load) -> dict[str, float]:
    """Calibrated probability by photo name, from the same model in this process.

    Raises `FileError` when the model can't be loaded or a file is no photo.
    """
    scorer = Scorer(model)
    photos = load_photos(load.photos, load.photo_count)
    refuse_broken(photos, scorer.manifest.image_spec)
    return {p.name: scorer.score(p.data).calibrated for p in tqdm(photos, desc="scoring locally", unit="photo")}


def measure(server: Server, load: Load, protocol: str, known: dict[str, float], label: str | None = None) -> dict[str, Any]:
    """Run a warm-up, then the measured load, and read the server's counters before and after it, where it has any.

    label: of the progress bars, by default the protocol. Returns JSON values.
    """
    return closed_loop(server, load, protocol, known, label)[0]


def closed_loop(
    server: Server, load: Load, protocol: str, known: Mapping[str, float], label: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """As `measure`, with the samples as JSON values beside the numbers."""
    label = label or protocol
    common: dict[str, Any] = {"users": load.users, "photos": load.photos, "photo_count": load.photo_count}
    common |= {"known": known, "lean": load.lean and protocol == "rest"}
    if load.warm_up:
        run_load(server.target, protocol, seconds=load.warm_up, label=f"warm-up {label}", **common)
    numbers, samples = measured(
        server, lambda: run_load(server.target, protocol, seconds=load.seconds, label=f"measure {label}", **common)
    )
    return numbers, asdict(samples)


def measured(server: Server, load: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """Run a load that returns `Samples`, and read the server's counters and CPU time before and after it.

    Returns the numbers as JSON values, and the samples.
    """
    before, cpu_before = server.metrics and read_metrics(server.metrics), server.cpu_seconds()
    samples: Samples = load()
    cpu_after, after = server.cpu_seconds(), server.metrics and read_metrics(server.metrics)
    inside = between(before, after) if before and after else None
    numbers = {**samples.to_dict(), "server_cpu_ms": None, "other_cpus": None, "server": inside}
    numbers["stack"] = stack(numbers["latency_ms"].get("mean"), inside) if inside else None
    if samples.started and cpu_before is not None and cpu_after is not None:
        used = cpu_after - cpu_before
        others = samples.machine_cpu_seconds - samples.cpu_seconds - used
        numbers["server_cpu_ms"] = round(1e3 * used / len(samples.started), 3)
        numbers["other_cpus"] = round(max(0.0, others / samples.seconds), 2)
    return numbers, samples


def stack(seen: float | None, inside: Mapping[str, Any]) -> dict[str, float] | None:
    """Mean milliseconds of a request in each stage, which add up to `seen`, the mean latency that the clients saw.

    inside: from `between`. transport is the rest: the way to the server and back, and the frontend, which hands requests over.
    None when no request was handled.
    """
    if seen is None or not inside["handled"]:
        return None
    stages = {
        stage: times["mean"] * times["count"] / inside["handled"]
        for stage, times in inside["stages"].items()
        if times["count"] and times["mean"] is not None
    }
    stages["transport"] = seen - sum(stages.values())
    return {stage: round(milliseconds, 3) for stage, milliseconds in stages.items()}
