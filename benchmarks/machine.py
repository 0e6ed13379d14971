"""The machine that a benchmark runs on: CPU, cores, memory, Python and library versions."""

from __future__ import annotations

import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from detector.cpus import available_cpus

LIBRARIES = ("numpy", "pillow", "onnxruntime-gpu", "onnxruntime", "torch", "torchserve", "grpcio", "locust")


def machine() -> dict[str, Any]:
    """The machine as JSON values; `label` describes it in one line."""
    cpus = available_cpus()
    cpu = _cpu_model()
    return {
        "label": f"{cpu}, {cpus} core{'s' if cpus != 1 else ''}",
        "cpu": cpu,
        "cores": cpus,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def busy_cpus(seconds: float = 0.5) -> float:
    """Mean number of busy CPUs over `seconds`, for all processes of the machine."""
    before = busy_seconds()
    time.sleep(seconds)
    return round((busy_seconds() - before) / seconds, 2)


def busy_seconds() -> float:
    """CPU time of all processes of the machine since it started, in seconds."""
    times = psutil.cpu_times()
    return times.user + times.nice + times.system


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
