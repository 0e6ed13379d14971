"""The benchmark's report: `report.json` for programs and one self-contained `index.html` for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks import plots


def write_report(report: dict[str, Any], directory: Path) -> None:
    """Write both files; each is whole or not there."""
    directory.mkdir(parents=True, exist_ok=True)
    _write(directory / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    _write(directory / "index.html", render(report))


def render(report: dict[str, Any]) -> str:
    """The HTML page, with its plots inside and nothing to load from elsewhere."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters["number"] = _number
    runs = [run for run in report["runs"] if run["requests"]]
    figures = [
        ("Latency by share of requests", plots.percentiles(runs)),
        ("Throughput over time", plots.throughput(runs)),
        ("Latency over time", plots.latency(runs)),
    ]
    return environment.get_template("report.html").render(
        report=report, figures=figures if runs else [], labels=plots.LABELS, colours=plots.COLOURS
    )


def _number(value: float | None) -> str:
    """A count in full, a measurement to three digits, thousands apart; a dash for what was not measured."""
    if value is None:
        return "–"
    digits = 0 if isinstance(value, int) else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
