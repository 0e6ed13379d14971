"""The benchmark of a running server: load by protocol, what clients and server saw of it, one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.load.generator import run_load
from benchmarks.machine import machine
from benchmarks.metrics_page import between, read_metrics
from benchmarks.photos import describe, load_photos, refuse_broken
from benchmarks.serving import Server
from detector.scorer import Scorer

NOISY_ABOVE_CPUS = 0.3


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


def benchmark(server: Server, load: Load, known: dict[str, float], *, busy_before: float) -> dict[str, Any]:
    """Load the server with one protocol after the other; returns the report as JSON values.

    known: calibrated probability by photo name, from `local_answers`, that answers must match; when it is empty, each photo's
    answers must match its first one. busy_before: CPUs in use by other processes before the server was started.
    Raises `MetricsUnreachable` before any load when there is no metrics page, `LoadFailed` when the load generator fails.
    """
    started = datetime.now(timezone.utc)
    photos = load_photos(load.photos, load.photo_count)
    assert server.metrics is not None
    read_metrics(server.metrics)
    runs = [{"protocol": protocol, **measure(server, load, protocol, known)} for protocol in load.protocols]
    notes = [_miscount(run) for run in runs]
    busy = max(busy_before, *(run["other_cpus"] or 0.0 for run in runs))
    if busy > NOISY_ABOVE_CPUS:
        notes.append(f"Up to {busy} CPUs were busy with other work before or meanwhile, so these numbers are noisy.")
    return {
        "format": 1,
        "started": f"{started:%Y-%m-%d %H:%M} UTC",
        "ok": all(run["requests"] and not run["failures"] for run in runs),
        "steady": all(run["steady"] for run in runs),
        "notes": [note for note in notes if note],
        "machine": machine(),
        "busy_cpus_before": busy_before,
        "settings": {
            "users": load.users,
            "seconds": load.seconds,
            "warm_up_seconds": load.warm_up,
            "photos": describe(photos, load.photos),
            "answers_checked_against": "the local scorer and each other" if known else "each other",
            **server.about,
        },
        "runs": runs,
    }


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
    label = label or protocol
    common: dict[str, Any] = {
        "users": load.users,
        "photos": load.photos,
        "photo_count": load.photo_count,
        "known": known,
        "lean": load.lean,
    }
    run_load(server.target, protocol, seconds=load.warm_up, label=f"warm-up {label}", **common)
    before, cpu_before = server.metrics and read_metrics(server.metrics), server.cpu_seconds()
    samples = run_load(server.target, protocol, seconds=load.seconds, label=f"measure {label}", **common)
    cpu_after, after = server.cpu_seconds(), server.metrics and read_metrics(server.metrics)
    inside = between(before, after) if before and after else None
    run = {**samples.to_dict(), "server_cpu_ms": None, "other_cpus": None, "server": inside}
    if samples.started and cpu_before is not None and cpu_after is not None:
        used = cpu_after - cpu_before
        others = samples.machine_cpu_seconds - samples.cpu_seconds - used
        run["server_cpu_ms"] = round(1e3 * used / len(samples.started), 3)
        run["other_cpus"] = round(max(0.0, others / samples.seconds), 2)
    return run


def _miscount(run: dict[str, Any]) -> str:
    counted, sent = run["server"]["handled"], run["requests"]
    if counted == sent:
        return ""
    return (
        f"{run['protocol']}: the clients count {sent} requests and the server's handler {counted}; it had other clients, "
        "or refused requests before they reached the handler."
    )
