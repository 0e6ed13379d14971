"""Memory, threads and garbage collection of the JVM, from the file of performance counters that it maps into memory."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
from prometheus_client.core import Metric

from serve.metrics.declared import SupervisorMetric, family

MAGIC = 0xCAFEC0C0
HEADER = "4xB3xiiqii"  # byte order; used, overflow, time of change, offset of the first entry, number of entries
ENTRY = "iii4Bi"  # length, offset of the name, length of the vector; type, flags, unit, variability; offset of the data
TEMPORARY = Path("/tmp")  # noqa: S108 - HotSpot's own place, whatever java.io.tmpdir says
HEAP = {  # area, and the counters that add up to it
    "heap_used": r"sun\.gc\.generation\.\d+\.space\.\d+\.used",
    "heap_committed": r"sun\.gc\.generation\.\d+\.capacity",
    "heap_max": r"sun\.gc\.generation\.\d+\.maxCapacity",
}
GC_TICKS = r"sun\.gc\.collector\.\d+\.time"


def performance_file(pid: int, folder: Path = TEMPORARY) -> Path:
    """The file of a JVM of this user, `/tmp/hsperfdata_USER/PID`; it may not be there.

    A JVM makes none where the user has no entry in the password database.
    """
    found = (path for path in folder.glob(f"hsperfdata_*/{pid}") if path.stat().st_uid == os.getuid())
    return next(found, folder / f"hsperfdata_/{pid}")


def read_counters(data: bytes) -> dict[str, int]:
    """The counters of such a file that are whole numbers, by name, such as `java.threads.live`.

    Source: OpenJDK, `src/hotspot/share/runtime/perfMemory.hpp`. Raises `ValueError` when it is none.
    """
    if len(data) < 32 or struct.unpack_from(">I", data)[0] != MAGIC:
        raise ValueError("is no file of a JVM's performance counters")
    order = "<" if data[4] else ">"
    _, _, _, _, position, count = struct.unpack_from(order + HEADER, data)
    counters: dict[str, int] = {}
    try:
        for _ in range(count):
            length, name_at, vector, kind, _, _, _, data_at = struct.unpack_from(order + ENTRY, data, position)
            if length <= 0:
                break
            name = data[position + name_at : data.index(b"\0", position + name_at)].decode("ascii")
            if kind == ord("J") and vector == 0:
                counters[name] = struct.unpack_from(order + "q", data, position + data_at)[0]
            position += length
    except struct.error:
        raise ValueError("ends before its last counter") from None
    return counters


def families(counters: Mapping[str, int], resident: int | None) -> Iterable[Metric]:
    """The metrics that these counters give; what they do not have is absent. resident: bytes that the kernel counts."""
    memory, threads, gc = (
        family(m) for m in (SupervisorMetric.JVM_MEMORY, SupervisorMetric.JVM_THREADS, SupervisorMetric.JVM_GC)
    )
    heap = {area: _sum(counters, names) for area, names in HEAP.items()}
    for area, value in {**heap, "metaspace_used": counters.get("sun.gc.metaspace.used"), "resident": resident}.items():
        if value is not None:
            memory.add_metric([area], value)
    if (number := counters.get("java.threads.live")) is not None:
        threads.add_metric([], number)
    ticks, frequency = _sum(counters, GC_TICKS), counters.get("sun.os.hrt.frequency")
    if ticks is not None and frequency:
        gc.add_metric([], ticks / frequency)
    return [each for each in (memory, threads, gc) if each.samples]


def jvm_families(pid: int, folder: Path = TEMPORARY) -> Iterable[Metric]:
    """The metrics of a JVM of this user. folder: where its file lies."""
    resident = counters = None
    with contextlib.suppress(psutil.Error):
        resident = psutil.Process(pid).memory_info().rss or None
    with contextlib.suppress(OSError, ValueError):
        counters = read_counters(performance_file(pid, folder).read_bytes())
    return families(counters or {}, resident)


def _sum(counters: Mapping[str, int], names: str) -> int | None:
    found = [value for name, value in counters.items() if re.fullmatch(names, name)]
    return sum(found) if found else None
