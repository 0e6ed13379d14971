"""The rows of a matrix, one JSON object a line: each is on disk as soon as its cell is measured."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detector.errors import FileError
from detector.files import shown

Row = dict[str, Any]


def read_rows(path: Path) -> dict[str, Row]:
    """The last row of each cell, by the cell's id. A line that was cut off, as by a power failure, is passed over.

    Raises `FileError` for a file that holds something else.
    """
    if not path.exists():
        return {}
    rows: dict[str, Row] = {}
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line else None
        except ValueError:
            row = None if line == lines[-1] else {}
        if row is None:
            continue
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise FileError(f"{shown(path)}: line {number} is no row of a matrix; give --out another file")
        rows[row["id"]] = row
    return rows


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row and wait until it is on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # the line before was cut off
                whole = path.read_bytes()
                file.truncate(whole.rfind(b"\n") + 1)
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def table(rows: Iterable[Row]) -> str:
    """The rows as an aligned table."""
    lines = [("cell", "requests/s", "p50 ms", "p99 ms", "failed", "")]
    for row in rows:
        if row["failed"]:
            lines.append((row["name"], "-", "-", "-", "-", row["failed"].splitlines()[0]))
            continue
        times = row["latency_ms"]
        numbers = (row["requests_per_second"], times.get("p50", "-"), times.get("p99", "-"), row["failures"])
        lines.append((row["name"], *map(str, numbers), "" if row["stable"] else "not stable"))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(line[c].rjust(widths[c]) for c in range(1, 5)), line[5]]).rstrip()
        for line in lines
    )
