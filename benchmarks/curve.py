"""The latency–throughput curve of a server: closed loops for its capacity, then open loops at shares of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.alternating import AlternatingComparison
from benchmarks.errors import GeneratorSaturated
from benchmarks.load.mix import Mix
from benchmarks.load.open_loop import DROPPED, OVERLOADED, open_loop
from benchmarks.machine import machine
from benchmarks.metrics_page import read_metrics
from benchmarks.photos import describe, load_photos
from benchmarks.roofline import Design, roofline
from benchmarks.run import NOISY_ABOVE_CPUS, Load, closed_loop, measured
from benchmarks.serving import Server
from detector.cpus import available_cpus

BATCHES = (1, 8, 16)  # of the roofline
SHOWN = ("design", "threads", "batch", "photos_per_second", "cpu_ms_per_photo", "steady")


@dataclass(frozen=True)
class Plan:
    """What is measured, for each protocol.

    users: clients of the closed loops, one after the other. shares: of the best closed loop's requests per second, for the
    open loops; rates: those of more of them, absolute. arrivals, mix: of the open loops. seconds, warm_up: of each load.
    locust: closed loops over REST with Locust too, which takes more CPU time; over gRPC it always is.
    """

    protocols: Sequence[str]
    users: Sequence[int]
    shares: Sequence[float]
    rates: Sequence[float]
    arrivals: str
    mix: Mix
    seconds: int
    warm_up: int
    photos: Path | None
    photo_count: int
    locust: bool = False


@dataclass(frozen=True)
class Measured:
    """The loads of one server. runs: numbers of each load. samples: of each load, by the same name. notes: for people."""

    runs: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    notes: list[str]


def measure_curve(server: Server, plan: Plan, known: Mapping[str, float], *, device: str = "cpu") -> Measured:
    """Load the server with each protocol in turn, as `plan` says.

    known: calibrated probability by photo name, from `local_answers`, that answers must match; when it is empty, each photo's
    answers must match its first one. Raises `MetricsUnreachable` before any load when there is no metrics page, `LoadFailed`
    when a load generator fails; an open loop that its generator can't keep up with is a note.
    """
    assert server.metrics is not None
    read_metrics(server.metrics)
    found = Measured([], [], [])
    suffix = "" if device == "cpu" else f", {device}"
    for protocol in plan.protocols:
        closed = []
        for users in plan.users:
            name = f"{protocol}, {users} client{'s' if users != 1 else ''}{suffix}"
            load = Load((protocol,), users, plan.seconds, plan.warm_up, plan.photos, plan.photo_count, lean=not plan.locust)
            numbers, samples = closed_loop(server, load, protocol, known, name)
            about = {"name": name, "protocol": protocol, "device": device, "loop": "closed", "users": users}
            _keep(found, {**about, "share": None, "rate": None}, numbers, samples)
            closed.append(numbers["requests_per_second"])
        shared = [(share, share * max(closed), f"{share:g} of capacity") for share in plan.shares]
        for share, rate, label in [*shared, *((None, rate, f"{rate:g} per second") for rate in plan.rates)]:
            if rate <= 0:
                found.notes.append(f"{protocol}, {label}: not measured, as no request was answered before")
                continue
            about = {"name": f"{protocol}, {label}{suffix}", "protocol": protocol, "device": device, "loop": "open"}
            _open(server, plan, known, {**about, "users": None, "share": share, "rate": round(rate, 3)}, found)
    return found


def _open(server: Server, plan: Plan, known: Mapping[str, float], about: dict[str, Any], found: Measured) -> None:
    def load() -> Any:
        return open_loop(
            server.target,
            about["protocol"],
            about["rate"],
            plan.seconds,
            arrivals=plan.arrivals,
            mix=plan.mix,
            known=known,
            photos=plan.photos,
            photo_count=plan.photo_count,
            label=about["name"],
        )

    try:
        numbers, samples = measured(server, load)
    except GeneratorSaturated as error:
        found.notes.append(f"{about['name']}: not measured, {error.message}")
    else:
        _keep(found, about, numbers, asdict(samples))


def _keep(found: Measured, about: dict[str, Any], numbers: dict[str, Any], samples: dict[str, Any]) -> None:
    found.runs.append({**numbers, **about})
    started = samples.pop("planned", None) or samples["started"]
    found.samples.append({**about, **samples, "started": started})
    handled, sent = (numbers["server"] or {}).get("handled"), numbers["requests"]
    refused = sum(numbers.get("statuses", {}).get(status, 0) for status in OVERLOADED)
    if handled is not None and handled != sent - refused:
        found.notes.append(
            f"{about['name']}: the clients count {sent} requests ({refused} refused) and the server's handler {handled}; "
            "it had other clients, or refused requests before they reached the handler."
        )


def against_roofline(
    server: Server, model: Path, plan: Plan, known: Mapping[str, float], *, rounds: int, seconds: float
) -> dict[str, Any]:
    """The roofline, and the server and it in alternation, as JSON values. seconds: of the roofline's measurements."""
    photos = load_photos(plan.photos, plan.photo_count)
    found = roofline(model, photos, threads=available_cpus(), batches=BATCHES, seconds=seconds)
    values = {
        "single_photo": found["single_photo"],
        "throughput": {key: found["throughput"][key] for key in SHOWN},
    }
    if rounds:
        alternating = AlternatingComparison(server.target.rest, model, photos, known, rounds)
        best = found["throughput"]
        values["single_photo_ms"] = alternating.single_photo()
        values["saturated"] = alternating.saturated(max(plan.users), Design(best["design"], best["threads"], best["batch"]))
    return values


def report_of(
    measured_by_device: Mapping[str, Measured],
    plan: Plan,
    *,
    about: Mapping[str, Any],
    servers: Mapping[str, Mapping[str, Any]],
    roofline: Mapping[str, Any] | None,
    known: bool,
    busy_before: float,
    price_per_hour: float | None,
) -> dict[str, Any]:
    """The report as JSON values. servers: facts on each device's server. known: answers were checked against the model."""
    runs = [run for found in measured_by_device.values() for run in found.runs]
    notes = [note for found in measured_by_device.values() for note in found.notes]
    busy = max([busy_before, *(run["other_cpus"] or 0.0 for run in runs)])
    if busy > NOISY_ABOVE_CPUS:
        notes.append(f"Up to {busy} CPUs were busy with other work before or meanwhile, so these numbers are noisy.")
    photos = load_photos(plan.photos, plan.photo_count)
    alternated = [roofline[key] for key in ("single_photo_ms", "saturated") if key in roofline] if roofline else []
    return {
        "format": 2,
        "started": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "ok": all(run["requests"] and not wrong(run) for run in runs) and not any(each["failures"] for each in alternated),
        "refused": sum(map(overloaded, runs)),
        "steady": all(run["steady"] for run in runs if run["loop"] == "closed"),
        "notes": notes,
        "about": dict(about),
        "machine": machine(),
        "busy_cpus_before": busy_before,
        "settings": {
            "seconds": plan.seconds,
            "warm_up_seconds": plan.warm_up,
            "arrivals": plan.arrivals,
            "mix": str(plan.mix),
            "photos": describe(photos, plan.photos),
            "answers_checked_against": "the local scorer and each other" if known else "each other",
        },
        "servers": {device: dict(facts) for device, facts in servers.items()},
        "capacity": capacity(runs, roofline, price_per_hour),
        "price_per_hour": price_per_hour,
        "roofline": dict(roofline) if roofline else None,
        "runs": runs,
    }


def wrong(run: Mapping[str, Any]) -> int:
    """Requests that failed for another reason than overload, which an open loop near the capacity has to expect."""
    return int(run["failures"]) - overloaded(run)


def overloaded(run: Mapping[str, Any]) -> int:
    """Requests of an open loop that were refused for overload, or dropped as no connection was free."""
    return sum(run.get("statuses", {}).get(status, 0) for status in (*OVERLOADED, DROPPED))


def capacity(
    runs: Sequence[Mapping[str, Any]], roofline: Mapping[str, Any] | None, price_per_hour: float | None
) -> list[dict[str, Any]]:
    """The best closed loop of each protocol and device: right answers per second, its share of the roofline, and what a
    million photos cost at `price_per_hour` of the machine, when it is busy all the time."""
    rows = []
    for protocol, device in dict.fromkeys((run["protocol"], run["device"]) for run in runs):
        closed = [run for run in runs if (run["protocol"], run["device"], run["loop"]) == (protocol, device, "closed")]
        if not closed:
            continue
        best = max(closed, key=lambda run: run["requests_per_second"])
        rate = best["requests_per_second"] * (1 - best["failures"] / best["requests"]) if best["requests"] else 0.0
        most = roofline["throughput"]["photos_per_second"] if roofline and device == "cpu" else None
        priced = price_per_hour is not None and rate > 0
        rows.append(
            {
                "protocol": protocol,
                "device": device,
                "users": best["users"],
                "photos_per_second": round(rate, 2),
                "of_roofline": round(rate / most, 3) if most else None,
                "cost_of_a_million": round(1e6 / rate / 3600 * (price_per_hour or 0.0), 4) if priced else None,
            }
        )
    return rows
