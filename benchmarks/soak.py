"""A soak test: a long steady load, during which memory and file descriptors of the server's processes must not grow."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from benchmarks.load.generator import run_load
from benchmarks.run import Load
from benchmarks.serving import Server
from detector.errors import UsageError

SAMPLE_SECONDS = 5.0
SETTLING = 1 / 3  # share of the run that is not judged: a JVM fills its heap before it collects
MEMORY_LIMIT = 0.01  # relative growth in ten minutes


@dataclass
class ResourceUsage:
    """Samples of one kind of process: seconds since the start, resident bytes, file descriptors; and the process ids seen."""

    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    processes: set[int] = field(default_factory=set)

    def to_dict(self) -> dict[str, Any]:
        """First and last values, and their growth after the settling time as the slope of a least-squares line."""
        late = np.array(self.seconds) >= SETTLING * self.seconds[-1]
        growth = [
            np.polyfit(np.array(self.seconds)[late], np.array(values, float)[late], 1)[0] * 600
            for values in (self.memory, self.descriptors)
        ]
        held = float(np.mean(np.array(self.memory)[late]))
        return {
            "mebibytes": [round(self.memory[i] / 2**20, 1) for i in (0, -1)],
            "memory_growth_in_ten_minutes": round(float(growth[0]) / held, 5),
            "descriptors": [self.descriptors[i] for i in (0, -1)],
            "descriptor_growth_in_ten_minutes": round(float(growth[1]), 2),
            "processes": len(self.processes),
        }


def require_long(seconds: float) -> None:
    """Raise `UsageError` for a run too short to fit a line to."""
    if seconds < 10 * SAMPLE_SECONDS:
        raise UsageError(f"--seconds {seconds:g}: a soak takes {10 * SAMPLE_SECONDS:.0f} seconds at the least")


def soak(server: Server, load: Load, known: Mapping[str, float]) -> dict[str, Any]:
    """Load our own server over REST; returns JSON values: failures, resource usage by kind of process, and `ok`.

    known: calibrated probability by photo name. Raises `LoadFailed` when the load generator fails.
    """
    kinds: dict[str, ResourceUsage] = {}
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(server, kinds, over))
    watcher.start()
    try:
        samples = run_load(
            *(server.target, "rest"),
            users=load.users,
            seconds=load.seconds,
            photos=load.photos,
            photo_count=load.photo_count,
            known=known,
            label="soak",
        ).to_dict()
    finally:
        over.set()
        watcher.join()
    held = {kind: usage.to_dict() for kind, usage in kinds.items()}
    return {
        **{k: samples[k] for k in ("requests", "failures", "failure_reasons", "seconds", "requests_per_second", "latency_ms")},
        "held": held,
        "ok": not samples["failures"] and all(map(is_steady, held.values())),
    }


def is_steady(held: Mapping[str, Any]) -> bool:
    """Whether resource usage, from `ResourceUsage.to_dict`, does not grow."""
    return held["memory_growth_in_ten_minutes"] < MEMORY_LIMIT and held["descriptor_growth_in_ten_minutes"] < 1


def _watch(server: Server, kinds: dict[str, ResourceUsage], over: threading.Event) -> None:
    number = 0
    while not over.wait(SAMPLE_SECONDS):
        number += 1
        for kind, processes in _by_kind(server.processes()).items():
            memory = descriptors = 0
            usage = kinds.setdefault(kind, ResourceUsage())
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    memory += process.memory_info().rss
                    descriptors += process.num_fds()
                    usage.processes.add(process.pid)
            usage.seconds.append(number * SAMPLE_SECONDS)
            usage.memory.append(memory)
            usage.descriptors.append(descriptors)


def _by_kind(processes: list[psutil.Process]) -> dict[str, Sequence[psutil.Process]]:
    top, *below = processes
    jvm = [process for process in below if process.name() == "java"]
    return {"supervisor": [top], "jvm": jvm, "workers": [process for process in below if process not in jvm]}
