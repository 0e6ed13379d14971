"""Cells of the fault matrix, and the table that they fill; the whole matrix runs with `--faults`, as `make faults` says."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.cell import Cell, Row

FACTOR = 120.0  # five minutes become two and a half seconds
_ROWS: list[Row] = []


@pytest.fixture
def cell(artifacts: Path, photos: list[bytes], tmp_path: Path) -> Iterator[Callable[..., Cell]]:
    """Begin a cell: the fault's name, the server's flags, `folders` for other artifacts, `factor` for other windows."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    with contextlib.ExitStack() as over:

        def begin(fault: str, *flags: str, folders: Sequence[Path] = (), factor: float = FACTOR) -> Cell:
            row = Row(fault)
            _ROWS.append(row)
            workers = () if "--workers" in flags else ("--workers", "1", "--threads", "1")
            made = Cell(row, tmp_path / f"cell{len(_ROWS)}", folders or [artifacts], photos, (*flags, *workers), factor)
            over.callback(made.close)
            return made

        yield begin


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix, and leave it in `reports/faults.md`."""
    if not _ROWS:
        return
    lines = ["| fault | metric | moved, s | alert | fired, s | action, s | ended, s |", "|---|---|---|---|---|---|---|"]
    for row in _ROWS:
        seconds = ["-" if s is None else f"{s:.1f}" for s in (row.moved, row.fired, row.action, row.ended)]
        cells = [row.fault, f"`{row.metric}`", seconds[0], row.alert, seconds[1], seconds[2], seconds[3]]
        lines.append("| " + " | ".join(each.replace("|", "\\|") for each in cells) + " |")
        lines += [f"\n{note}" for note in row.notes]
    terminalreporter.section("fault matrix")
    terminalreporter.write_line("\n".join(lines))
    report = ROOT / "reports" / "faults.md"
    report.parent.mkdir(exist_ok=True)
    report.write_text("# Fault matrix\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
