"""Measure a matrix: cell after cell until it is stable, and on from where an earlier run was stopped."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks import summary
from benchmarks.errors import GeneratorSaturated, LoadFailed
from benchmarks.load.generator import Samples, run_load
from benchmarks.load.known import Known, known_answers, model_of
from benchmarks.load.mix import Mix
from benchmarks.load.open_loop import OpenSamples, open_loop
from benchmarks.machine import machine
from benchmarks.matrix.plan import Cell, ClosedLoad, Plan, ServerCell, servers
from benchmarks.matrix.rows import Row, append_row, read_rows
from benchmarks.serving import Server, own_server
from detector.errors import UnmaskError

STABLE_WINDOWS = 3
STABLE_WITHIN = 0.05


def run_matrix(plan: Plan, results: Path) -> list[Row]:
    """Measure every cell that has no row in `results` yet, or one that failed; returns the rows of all cells.

    A cell that fails has a row with its reason. Rows of earlier runs stay in the file, and each row is added to it as soon as
    its cell is done, so that a run that is stopped goes on where it was. Raises `FileError` for missing artifacts and for a
    file of results that holds something else.
    """
    cells = plan.cells()
    rows = read_rows(results)
    left = [cell for cell in cells if rows.get(cell.id, {"failed": "not measured"})["failed"]]
    with tqdm(total=len(cells), initial=len(cells) - len(left), unit="cell", desc="matrix") as bar:

        def keep(row: Row) -> None:
            append_row(results, row)
            rows[row["id"]] = row
            bar.update()
            bar.write(f"{row['name']}: {row['failed'] or _told(row)}", file=sys.stderr)

        for server, group in servers(left):
            _measure_group(plan, server, group, keep)
    return [rows[cell.id] for cell in cells]


def _measure_group(plan: Plan, wanted: ServerCell, cells: Sequence[Cell], keep: Callable[[Row], None]) -> None:
    """Start a server and measure its cells."""
    left = list(cells)
    try:
        answers = _Answers(plan, wanted)
        options = ("--batch-size", str(wanted.batch))
        with own_server(Path(wanted.artifacts), wanted.archive, wanted.workers or None, wanted.device, options) as server:
            while left:
                keep(_measure(plan, left[0], server, answers))
                del left[0]
    except UnmaskError as error:  # the server does not start, or its model can't be read
        for cell in left:
            keep(_row(cell, {}, failed=error.message))


class _Answers:
    """The right answers to each mix of a server's loads, scored once."""

    def __init__(self, plan: Plan, server: ServerCell) -> None:
        self._plan, self._model = plan, model_of(Path(server.artifacts), server.archive)
        self._known: dict[str, Known] = {}

    def to(self, mix: str) -> Known:
        if mix not in self._known:
            self._known[mix] = known_answers(self._model, Mix.parse(mix), self._plan.photos, self._plan.photo_count)
        return self._known[mix]


def _measure(plan: Plan, cell: Cell, server: Server, answers: _Answers) -> Row:
    """Windows of load until three in a row agree, or there are as many as the plan allows."""
    windows: list[Samples | OpenSamples] = []
    try:
        _window(plan, cell, server, answers, "warm-up")
        while len(windows) < plan.windows and not is_stable([_numbers(window) for window in windows]):
            windows.append(_window(plan, cell, server, answers, f"window {len(windows) + 1}"))
    except (LoadFailed, GeneratorSaturated) as error:
        return _row(cell, server.about, failed=error.message)
    counted = windows[-STABLE_WINDOWS:]
    took = [ms for window in counted for ms, problem in zip(window.milliseconds, window.problems, strict=True) if not problem]
    wrong = Counter(problem for window in counted for problem in window.problems if problem)
    numbers = [_numbers(window) for window in windows]
    return _row(
        cell,
        server.about,
        stable=is_stable(numbers),
        requests_per_second=round(float(np.mean([rate for rate, _ in numbers[-STABLE_WINDOWS:]])), 2),
        latency_ms=summary.latency(took),
        failures=wrong.total(),
        failure_reasons=dict(wrong.most_common()),
        windows=[{"requests_per_second": rate, "p50_ms": p50} for rate, p50 in numbers],
    )


def _window(plan: Plan, cell: Cell, server: Server, answers: _Answers, label: str) -> Samples | OpenSamples:
    load, photos, count = cell.load, plan.photos, plan.photo_count
    if isinstance(load, ClosedLoad):
        return run_load(
            *(server.target, load.protocol),
            users=load.users,
            seconds=max(1, round(plan.window)),
            photos=photos,
            photo_count=count,
            known=answers.to("plain").calibrated,
            label=label,
            lean=load.protocol == "rest",
        )
    known = answers.to(load.mix)
    return open_loop(
        *(server.target, load.protocol, load.rate, plan.window),
        arrivals=load.arrivals,
        mix=Mix.parse(load.mix),
        known=known.calibrated,
        threshold=known.threshold,
        photos=photos,
        photo_count=count,
        label=label,
    )


def _numbers(window: Samples | OpenSamples) -> tuple[float, float]:
    """Right answers per second, and their median latency in milliseconds; zero without any."""
    values = window.to_dict()
    return values["requests_per_second"], values["latency_ms"].get("p50", 0.0)


def is_stable(windows: Sequence[tuple[float, float]]) -> bool:
    """Whether the last three windows' rates, and their median latencies, are each within 5 % of their mean."""
    last = np.array(windows[-STABLE_WINDOWS:])
    if len(last) < STABLE_WINDOWS:
        return False
    mean = last.mean(axis=0)
    return bool((abs(last - mean) <= STABLE_WITHIN * mean).all() and (mean > 0).all())


def _row(cell: Cell, about: Mapping[str, Any], *, failed: str = "", **numbers: Any) -> Row:
    return {
        "id": cell.id,
        "name": str(cell),
        "cell": cell.to_dict(),
        "failed": failed,
        **numbers,
        "server": dict(about),
        "machine": machine()["label"],
        "at": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
    }


def _told(row: Row) -> str:
    times = row["latency_ms"]
    return (
        f"{row['requests_per_second']}/s, p50 {times.get('p50')} ms, p99 {times.get('p99')} ms, {row['failures']} failed"
        f"{'' if row['stable'] else ', not stable'}"
    )
