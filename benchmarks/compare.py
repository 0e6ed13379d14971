"""A server beside the roofline and beside its peers: one model, the same photos, the same load generator, all in one run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.alternating import InTurn
from benchmarks.machine import machine
from benchmarks.photos import describe, load_photos
from benchmarks.roofline import Design, roofline
from benchmarks.run import NOISY_ABOVE_CPUS, Load, local_answers, measure
from benchmarks.serving import Server, own_server, peer_server, why_not
from detector.cpus import available_cpus

OURS = "unmask"
MOVED_ABOVE = 0.10
KEPT = ("requests", "failures", "failure_reasons", "requests_per_second", "latency_ms", "thirds", "steady")
KEPT_CPU = ("server_cpu_ms", "load_generator_cpu_ms", "other_cpus")


@dataclass(frozen=True)
class Contest:
    """What is measured.

    users: clients at a time, one load after the other. seconds and warm_up: of each load. locust: load with Locust instead of
    `benchmarks.closed_loop`, which leaves the servers more of the machine. roofline_seconds and batch: of the roofline and its
    sweep. peers: names out of `PEERS`. workers: of our server, None for its own choice.
    rounds: of what is measured in turn.
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


def compare(artifacts: Path, contest: Contest, *, busy_before: float) -> dict[str, Any]:
    """The roofline, then every server under each load, then the roofline again, as JSON values.

    One server is up at a time, since a waiting one may take CPUs from the one that is measured: LitServe's workers look for
    work all the time, for a quarter of a CPU. busy_before: CPUs that others used before any of it.
    Raises `StartupFailed` when a server does not get ready, `LoadFailed` when the load generator breaks, `FileError` for the
    artifacts.
    """
    load = Load(("rest",), 1, contest.seconds, contest.warm_up, contest.photos, contest.photo_count, lean=not contest.locust)
    known = local_answers(artifacts / "model.onnx", load)
    skipped = {peer: reason for peer in contest.peers if (reason := why_not(peer))}
    before = _roofline(artifacts, contest)
    photos = load_photos(contest.photos, contest.photo_count)
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    about: dict[str, dict[str, Any]] = {}
    for name in (OURS, *(peer for peer in contest.peers if peer not in skipped)):
        with _server(name, artifacts, contest, photos[0].data) as server:
            if name == OURS:
                turns = InTurn(server.target.rest, artifacts / "model.onnx", photos, known, contest.rounds)
                best = Design(**{key: before["throughput"][key] for key in ("design", "threads", "batch")})
                in_turn = {"single_photo_ms": turns.single_photo(), "saturated": turns.saturated(max(contest.users), best)}
            runs[name] = {users: _one(name, server, replace(load, users=users), known) for users in contest.users}
            about[name] = server.about
    after = _roofline(artifacts, contest)
    every = [run for by_users in runs.values() for run in by_users.values()]
    return {
        "ok": all(run["requests"] for run in every) and not any(run["failures"] for run in (*every, *in_turn.values())),
        "ratios": {**ratios(before, after, runs), **in_turn},
        "notes": _notes(before, after, every, busy_before),
        "skipped": skipped,
        "roofline": {"before": before, "after": after},
        "servers": {name: {**about[name], "runs": list(runs[name].values())} for name in runs},
        "settings": {
            "seconds": contest.seconds,
            "warm_up_seconds": contest.warm_up,
            "load_generator": "locust" if contest.locust else "benchmarks.closed_loop",
            "photos": describe(photos, contest.photos),
        },
        "machine": machine(),
        "busy_cpus_before": busy_before,
    }


def ratios(before: dict[str, Any], after: dict[str, Any], runs: dict[str, dict[int, dict[str, Any]]]) -> dict[str, Any]:
    """What the run was for, by number of clients as text (JSON has no other keys).

    of_roofline: our requests per second by the roofline's photos per second, the mean of the two times it was taken.
    of_peers: ours by each peer's. Both above 1 when we are faster.
    """
    most = mean(side["throughput"]["photos_per_second"] for side in (before, after))
    rate = {name: {str(n): run["requests_per_second"] for n, run in by_users.items()} for name, by_users in runs.items()}
    return {
        "of_roofline": {name: {n: _ratio(found, most) for n, found in rates.items()} for name, rates in rate.items()},
        "of_peers": {
            name: {n: _ratio(rate[OURS][n], found) for n, found in rates.items()}
            for name, rates in rate.items()
            if name != OURS
        },
    }


def _server(name: str, artifacts: Path, contest: Contest, photo: bytes) -> AbstractContextManager[Server]:
    return own_server(artifacts, "onnx", contest.workers, "cpu") if name == OURS else peer_server(name, artifacts, photo)


def _ratio(a: float, b: float) -> float | None:
    return round(a / b, 3) if b else None


def _roofline(artifacts: Path, contest: Contest) -> dict[str, Any]:
    photos = load_photos(contest.photos, contest.photo_count)
    found = roofline(
        artifacts / "model.onnx", photos, threads=available_cpus(), batches=contest.batch, seconds=contest.roofline_seconds
    )
    return {key: found[key] for key in ("single_photo", "throughput")}


def _one(name: str, server: Server, load: Load, known: dict[str, float]) -> dict[str, Any]:
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
