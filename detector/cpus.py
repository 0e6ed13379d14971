"""The CPUs that this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """Number of CPUs by the affinity mask and the control group's quota, whichever is smaller; at least 1.

    `os.cpu_count` and the runtimes' defaults count all CPUs of the machine, also inside a container that is limited to two.
    root: folder that holds `proc` and `sys`.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([count, *map(int, _quotas(root))]))


def _quotas(root: Path) -> list[float]:
    """Quotas, in CPUs, of this process's control group and its parents (v2 `cpu.max`, v1 `cpu.cfs_*`)."""
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    quotas = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        group = (base / "cpu" if controllers else base) / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(base) and (quota := _quota(folder)):
                quotas.append(quota)
    return quotas


def _quota(folder: Path) -> float | None:
    """Quota of one control group in CPUs, None without a limit."""
    for read in (_version_2, _version_1):
        try:
            limit, period = read(folder)
            return limit / period if limit > 0 else None
        except (OSError, ValueError):
            continue
    return None


def _version_2(folder: Path) -> tuple[float, float]:
    limit, period = (folder / "cpu.max").read_text().split()
    return (0, 1) if limit == "max" else (float(limit), float(period))


def _version_1(folder: Path) -> tuple[float, float]:
    return (
        float((folder / "cpu.cfs_quota_us").read_text()),
        float((folder / "cpu.cfs_period_us").read_text()),
    )


def has_vnni() -> bool:
    """Whether the CPU is known to have VNNI, x86 instructions that add products of 8-bit numbers exactly in 32 bits."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:  # another system than Linux
        return False
    return "avx512_vnni" in flags or "avx_vnni" in flags
