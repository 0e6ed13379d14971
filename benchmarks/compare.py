"""Compare a server with the roofline and with other servers: one model, the same photos and load generator, in one run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.alternating import AlternatingComparison
from benchmarks.machine import machine
from benchmarks.photos import describe, load_photos
from benchmarks.roofline import Design, roofline
from benchmarks.run import NOISY_ABOVE_CPUS, Load, local_answers, measure
from benchmarks.serving import Server, own_server, peer_server, why_unavailable
from detector.cpus import available_cpus

OURS = "unmask"
MOVED_ABOVE = 0.10
KEPT = ("requests", "failures", "failure_reasons", "requests_per_second", "latency_ms", "thirds", "steady")
KEPT_CPU = ("server_cpu_ms", "load_generator_cpu_ms", "other_cpus")


@dataclass(frozen=True)
class ComparisonSettings:
    """Settings of a comparison.

    users: clients at a time, for one load after the other. seconds, warm_up: of each load. roofline_seconds: of each
    measurement of the roofline. batch: batch sizes of the roofline's sweep. peers: names in `PEERS`. workers: of our server,
    None for its default. locust: load with Locust instead of `benchmarks.load.closed_loop`, which takes less CPU time.
    rounds: of the alternating measurements.
    """

    users: Sequence[int]
    seconds: int
    warm_up: int
    roofline_seconds: float
    batch: Sequence[int]
    peers: Sequence[str]
    photos: Path | None
    photo_count: int
    workers: int | None
    locust: bool
    rounds: int


def compare_servers(artifacts: Path, settings: ComparisonSettings, *, busy_before: float) -> dict[str, Any]:
    """Measure the roofline, each server under each load, and the roofline again; returns JSON values.

    One server runs at a time, since an idle one may take CPU time: LitServe's workers poll, for a quarter of a CPU.
    busy_before: CPUs in use by other processes before the start.
    Raises `StartupFailed` when a server does not become ready, `LoadFailed` when the load generator fails, `FileError` for
    the artifacts.
    """
    load = Load(
        ("rest",), 1, settings.seconds, settings.warm_up, settings.photos, settings.photo_count, lean=not settings.locust
    )
    known = local_answers(artifacts / "model.onnx", load)
    skipped = {peer: reason for peer in settings.peers if (reason := why_unavailable(peer))}
    before = _roofline(artifacts, settings)
    photos = load_photos(settings.photos, settings.photo_count)
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    about: dict[str, dict[str, Any]] = {}
    for name in (OURS, *(peer for peer in settings.peers if peer not in skipped)):
        with _server(name, artifacts, settings, photos[0].data) as server:
            if name == OURS:
                alternating = AlternatingComparison(
                    server.target.rest, artifacts / "model.onnx", photos, known, settings.rounds
                )
                best = Design(**{key: before["throughput"][key] for key in ("design", "threads", "batch")})
                alternated = {
                    "single_photo_ms": alternating.single_photo(),
                    "saturated": alternating.saturated(max(settings.users), best),
                }
            runs[name] = {users: _measure(name, server, replace(load, users=users), known) for users in settings.users}
            about[name] = server.about
    after = _roofline(artifacts, settings)
    every = [run for by_users in runs.values() for run in by_users.values()]
    return {
        "ok": all(run["requests"] for run in every) and not any(run["failures"] for run in (*every, *alternated.values())),
        "ratios": {**ratios(before, after, runs), **alternated},
        "notes": _notes(before, after, every, busy_before),
        "skipped": skipped,
        "roofline": {"before": before, "after": after},
        "servers": {name: {**about[name], "runs": list(runs[name].values())} for name in runs},
        "settings": {
            "seconds": settings.seconds,
            "warm_up_seconds": settings.warm_up,
            "load_generator": "locust" if settings.locust else "benchmarks.load.closed_loop",
            "photos": describe(photos, settings.photos),
        },
        "machine": machine(),
        "busy_cpus_before": busy_before,
    }


def ratios(before: dict[str, Any], after: dict[str, Any], runs: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """Ratios of throughput, by number of clients as text (JSON has no other keys); above 1 when our server is faster.

    of_roofline: a server's requests per second over the roofline's photos per second, the mean of its two measurements.
    of_peers: ours over each peer's.
    """
    roofline_rate = mean(side["throughput"]["photos_per_second"] for side in (before, after))
    rate = {name: {str(n): run["requests_per_second"] for n, run in by_users.items()} for name, by_users in runs.items()}
    return {
        "of_roofline": {name: {n: _ratio(found, roofline_rate) for n, found in rates.items()} for name, rates in rate.items()},
        "of_peers": {
            name: {n: _ratio(rate[OURS][n], found) for n, found in rates.items()}
            for name, rates in rate.items()
            if name != OURS
        },
    }


def _server(name: str, artifacts: Path, settings: ComparisonSettings, photo: bytes) -> AbstractContextManager[Server]:
    return own_server(artifacts, "onnx", settings.workers, "cpu") if name == OURS else peer_server(name, artifacts, photo)


def _ratio(a: float, b: float) -> float | None:
    return round(a / b, 3) if b else None


def _roofline(artifacts: Path, settings: ComparisonSettings) -> dict[str, Any]:
    photos = load_photos(settings.photos, settings.photo_count)
    found = roofline(
        artifacts / "model.onnx", photos, threads=available_cpus(), batches=settings.batch, seconds=settings.roofline_seconds
    )
    return {key: found[key] for key in ("single_photo", "throughput")}


def _measure(name: str, server: Server, load: Load, known: dict[str, float]) -> dict[str, Any]:
    run = measure(server, load, "rest", known, f"{name}, {load.users} clients")
    print(f"{name}, {load.users} clients: {run['requests_per_second']}/s, {run['failures']} failed", file=sys.stderr)
    return {"users": load.users, **{key: run[key] for key in (*KEPT, *KEPT_CPU)}}


def _notes(before: dict[str, Any], after: dict[str, Any], runs: list[dict[str, Any]], busy_before: float) -> list[str]:
    notes = []
    first, second = (side["throughput"]["photos_per_second"] for side in (before, after))
    if abs(first - second) > MOVED_ABOVE * min(first, second):
        notes.append(f"The roofline moved from {first} to {second} photos per second, so the machine was not quiet.")
    busy = max(busy_before, *(run["other_cpus"] or 0.0 for run in runs))
    if busy > NOISY_ABOVE_CPUS:
        notes.append(f"Up to {busy} CPUs were busy with other work before or meanwhile, so these numbers are noisy.")
    unsteady = sum(not run["steady"] for run in runs)
    if unsteady:
        notes.append(f"{unsteady} of {len(runs)} loads were not steady: measure longer.")
    return notes
