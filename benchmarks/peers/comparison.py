"""Our server and its peers side by side: one model, the same photos and load generator, in turn, in rounds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.load.generator import run_load
from benchmarks.machine import machine
from benchmarks.peers import PEERS
from benchmarks.peers.starting import peer_server, version, why_unavailable
from benchmarks.photos import Photo, describe, load_photos
from benchmarks.roofline import Design, roofline, throughput
from benchmarks.run import NOISY_ABOVE_CPUS, Load, local_answers
from benchmarks.serving import Server, own_server
from detector.cpus import available_cpus
from detector.errors import UnmaskError
from serve.settings import Settings

OURS = "unmask"
OURS_HOW = "the defaults: a worker for each CPU, one thread each, batches of up to {batch}, no delay to fill them"
BATCHES = (1, 8, 16)  # of the roofline
MOVED_ABOVE = 0.10


@dataclass(frozen=True)
class PeerSettings:
    """Settings of a comparison. clients: at a time, for one load after the other. seconds, warm_up: of each load. rounds: how
    often each server is started and loaded. roofline_seconds: of each measurement of it, before each round and at the end."""

    clients: Sequence[int]
    seconds: int
    warm_up: int
    rounds: int
    roofline_seconds: float
    peers: Sequence[str]
    photos: Path | None
    photo_count: int
    workers: int | None


@dataclass(frozen=True)
class LoadOfServer:
    """One load of one server in one round. samples: as the load generator wrote them."""

    server: str
    clients: int
    round: int
    numbers: dict[str, Any]
    samples: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the load, the same in each round."""
        return f"{self.server}, {self.clients} client{'s' if self.clients != 1 else ''}"


def compare_peers(
    artifacts: Path, settings: PeerSettings, *, busy_before: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure the roofline and each server in rounds; returns the result and the samples of every load, as JSON values.

    One server runs at a time, since an idle one may take CPU time: LitServe's workers poll, for a quarter of a CPU. Every
    other round goes through the servers backwards, so that a machine that slows down is no server's disadvantage. A peer that
    can't run is a row with its reason. busy_before: CPUs in use by other processes before the start.
    Raises `StartupFailed` when our own server does not become ready, `LoadFailed`, `FileError` for the artifacts.
    """
    photos = load_photos(settings.photos, settings.photo_count)
    load = Load(("rest",), 1, settings.seconds, settings.warm_up, settings.photos, settings.photo_count, lean=True)
    known = local_answers(artifacts / "model.onnx", load)
    skipped = {peer: reason for peer in settings.peers if (reason := why_unavailable(peer))}
    servers = [OURS, *(peer for peer in settings.peers if peer not in skipped)]
    best = _best_design(artifacts, photos, settings)
    rooflines, loads = [], []
    for number in range(settings.rounds):
        rooflines.append(_photos_per_second(artifacts, photos, best, settings))
        for name in servers[:: -1 if number % 2 else 1]:
            if name in skipped:
                continue
            try:
                with _server(name, artifacts, settings, photos[0].data) as server:
                    loads += [_load(name, server, clients, number, known, settings) for clients in settings.clients]
            except UnmaskError as error:
                if name == OURS:
                    raise
                skipped[name] = str(error)
    rooflines.append(_photos_per_second(artifacts, photos, best, settings))
    loads = [load for load in loads if load.server not in skipped]
    busy = max([busy_before, *(load.numbers["other_cpus"] for load in loads)])
    result = {
        "ok": all(load.numbers["requests"] and not load.numbers["failures"] for load in loads),
        "servers": {name: _about(name, settings) for name in servers if name not in skipped},
        "skipped": skipped,
        "table": table(loads, rooflines),
        "loads": [{"server": load.server, "clients": load.clients, "round": load.round, **load.numbers} for load in loads],
        "roofline": {**asdict(best), "photos_per_second": rooflines},
        "notes": _notes(rooflines, busy),
        "settings": {
            "seconds": settings.seconds,
            "warm_up_seconds": settings.warm_up,
            "rounds": settings.rounds,
            "photos": describe(photos, settings.photos),
        },
        "machine": machine(),
        "busy_cpus_before": busy_before,
    }
    return result, [{"name": load.name, "round": load.round, **load.samples} for load in loads]


def table(loads: Sequence[LoadOfServer], rooflines: Sequence[float]) -> list[dict[str, Any]]:
    """A row for each server and number of clients: medians over the rounds, and the share of the roofline.

    The share is the median over the rounds of answers per second over the mean of the two rooflines around that round.
    """
    rows = []
    for server, clients in dict.fromkeys((load.server, load.clients) for load in loads):
        mine = [load for load in loads if (load.server, load.clients) == (server, clients)]

        def share(load: LoadOfServer) -> float | None:
            most = (rooflines[load.round] + rooflines[load.round + 1]) / 2
            return load.numbers["requests_per_second"] / most if most else None

        rows.append(
            {
                "server": server,
                "clients": clients,
                "requests_per_second": _median(load.numbers["requests_per_second"] for load in mine),
                "by_round": [load.numbers["requests_per_second"] for load in mine],
                "of_roofline": _median(map(share, mine)),
                **{key: _median(load.numbers["latency_ms"].get(key) for load in mine) for key in ("p50", "p99")},
                "server_cpu_ms": _median(load.numbers["server_cpu_ms"] for load in mine),
                "failures": sum(load.numbers["failures"] for load in mine),
            }
        )
    return rows


def _median(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return round(median(found), 3) if found else None


def markdown(result: Mapping[str, Any]) -> str:
    """The table as Markdown: a row for each server with its version and settings, a group of columns for each load."""
    clients = list(dict.fromkeys(row["clients"] for row in result["table"]))
    heads = [f"{n} client{'s' if n != 1 else ''}: per second (of the roofline), p50, p99 ms" for n in clients]
    lines = ["| | " + " | ".join(heads) + " | how it is set |", "|" + "---|" * (len(clients) + 2)]
    for name, about in result["servers"].items():
        cells = [_cell(row) for row in result["table"] if row["server"] == name]
        lines.append(f"| {about['title']} {about['version']} | {' | '.join(cells)} | {about['how']} |")
    for name, reason in result["skipped"].items():
        lines.append(f"| {PEERS[name].title} | " + "– | " * len(clients) + f"not measured: {reason.splitlines()[0]} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any]) -> str:
    if row["p50"] is None:
        return "no answers"
    failed = f", {row['failures']} failed" if row["failures"] else ""
    return f"{row['requests_per_second']:.0f} ({row['of_roofline']:.2f}), {row['p50']:.1f}, {row['p99']:.1f}{failed}"


def _best_design(artifacts: Path, photos: Sequence[Photo], settings: PeerSettings) -> Design:
    found = roofline(
        artifacts / "model.onnx",
        photos,
        threads=available_cpus(),
        batches=BATCHES,
        seconds=settings.roofline_seconds,
    )["throughput"]
    return Design(found["design"], found["threads"], found["batch"])


def _photos_per_second(artifacts: Path, photos: Sequence[Photo], design: Design, settings: PeerSettings) -> float:
    found = throughput(artifacts / "model.onnx", photos, design, seconds=settings.roofline_seconds)
    return float(found["photos_per_second"])


def _server(name: str, artifacts: Path, settings: PeerSettings, photo: bytes) -> AbstractContextManager[Server]:
    return own_server(artifacts, "onnx", settings.workers, "cpu") if name == OURS else peer_server(name, artifacts, photo)


def _load(
    name: str, server: Server, clients: int, number: int, known: Mapping[str, float], settings: PeerSettings
) -> LoadOfServer:
    common: dict[str, Any] = {"users": clients, "photos": settings.photos, "photo_count": settings.photo_count}
    common |= {"known": known, "lean": True}
    label = f"{name}, {clients} clients"
    run_load(server.target, "rest", seconds=settings.warm_up, label=f"warm-up {label}", **common)
    before = server.cpu_seconds() or 0.0
    samples = run_load(server.target, "rest", seconds=settings.seconds, label=f"measure {label}", **common)
    used = (server.cpu_seconds() or 0.0) - before
    numbers = samples.to_dict()
    numbers = {key: numbers[key] for key in ("requests", "failures", "failure_reasons", "requests_per_second", "latency_ms")}
    others = samples.machine_cpu_seconds - samples.cpu_seconds - used
    numbers["server_cpu_ms"] = round(1e3 * used / numbers["requests"], 3) if numbers["requests"] else None
    numbers["other_cpus"] = round(max(0.0, others / samples.seconds), 2) if samples.seconds else 0.0
    print(f"{label}: {numbers['requests_per_second']}/s, {numbers['failures']} failed", file=sys.stderr)
    return LoadOfServer(name, clients, number, numbers, asdict(samples))


def _about(name: str, settings: PeerSettings) -> dict[str, Any]:
    if name == OURS:
        how = OURS_HOW.format(batch=Settings.model_fields["batch_size"].default)
        return {"title": "Unmask", "version": metadata.version("unmask"), "how": how}
    peer = PEERS[name]
    return {"title": peer.title, "version": version(name), "how": peer.how}


def _notes(rooflines: Sequence[float], busy: float) -> list[str]:
    notes = []
    if max(rooflines) > (1 + MOVED_ABOVE) * min(rooflines):
        low, high = min(rooflines), max(rooflines)
        notes.append(f"The roofline moved between {low} and {high} photos per second, so the machine was not quiet.")
    if busy > NOISY_ABOVE_CPUS:
        notes.append(f"Up to {busy} CPUs were busy with other work before or meanwhile, so these numbers are noisy.")
    return notes
