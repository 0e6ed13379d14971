"""The benchmark's report: `report.json` for programs and one self-contained `index.html` for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.report import plots
from detector import html
from detector.files import atomic_write, write_json

STYLE = """\
main { max-width: 70rem; }
.headline.grpc b:not(.good, .bad) { color: var(--second); }
.state { display: inline-block; padding: .1rem .6rem; border: 1px solid; border-radius: 1rem; font-size: .9rem;
  margin: .15rem .35rem .15rem 0; }
table.n td { white-space: nowrap; }
table.n td.text { white-space: normal; overflow-wrap: anywhere; }
table.n td:first-child, table.n th:first-child { text-align: left; }
.plots { grid-template-columns: repeat(auto-fit, minmax(min(100%, 21rem), 1fr)); }
.plots figcaption { font-weight: 600; margin-bottom: .25rem; }
"""


def write_report(report: dict[str, Any], directory: Path) -> None:
    """Write both files; each is whole or not there."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "report.json", report)
    with atomic_write(directory / "index.html") as partial:
        partial.write_text(render(report), encoding="utf-8", errors="backslashreplace")


def render(report: dict[str, Any]) -> str:
    """The HTML page, with its plots inside and nothing to load from elsewhere."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters["number"] = _number
    runs = [run for run in report["runs"] if run["requests"]]
    drawings = {
        "Latency by share of requests": plots.percentiles,
        "Throughput over time": plots.throughput,
        "Latency over time": plots.latency,
    }
    figures = [(title, draw(runs)) for title, draw in drawings.items()] if runs else []
    width, height = (round(inches * plots.DPI) for inches in plots.SIZE)
    body = environment.get_template("report.html").render(
        report=report,
        figures=[(title, Markup(html.picture(shown, title, width, height))) for title, shown in figures],  # noqa: S704
        labels=plots.LABELS,
    )
    return html.page(f"Unmask benchmark, {report['started']}", body, style=STYLE)


def _number(value: float | None) -> str:
    """A count in full, a measurement to three digits, thousands apart; a dash for what was not measured."""
    if value is None:
        return "–"
    digits = 0 if isinstance(value, int) else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
