"""The benchmark's report: `report.json` for programs, one self-contained `index.html` for people, and every sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.report import plots
from benchmarks.report.samples import NAME, write_samples
from detector.display import html
from detector.files import atomic_write, write_json

STYLE = """\
main { max-width: 72rem; }
.headline .grpc:not(.good, .bad) { color: var(--second); }
.state { display: inline-block; padding: .1rem .6rem; border: 1px solid; border-radius: 1rem; font-size: .9rem;
  margin: .15rem .35rem .15rem 0; }
table.n td { white-space: nowrap; }
table.n td.text { white-space: normal; overflow-wrap: anywhere; }
table.n td:first-child, table.n th:first-child { text-align: left; }
.plots { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.plots figcaption { font-weight: 600; margin-bottom: .25rem; }
figure.whole { grid-column: 1 / -1; }
"""


def write_report(report: dict[str, Any], samples: Sequence[dict[str, Any]], directory: Path) -> None:
    """Write the three files; each is whole or not there."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "report.json", report)
    write_samples(directory / NAME, {**report["about"], "photos": report["settings"]["photos"]}, samples)
    with atomic_write(directory / "index.html") as partial:
        partial.write_text(render(report), encoding="utf-8", errors="backslashreplace")


def render(report: dict[str, Any]) -> str:
    """The HTML page, with its plots inside and nothing to load from elsewhere."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"number": _number, "percent": _percent}
    body = environment.get_template("report.html").render(
        report=report,
        figures=[(title, whole, Markup(drawing)) for title, whole, drawing in _figures(report)],  # noqa: S704
        labels=plots.LABELS,
        label=plots.label,
        stages=[stage for stage in plots.STAGES if any((run["stack"] or {}).get(stage) for run in report["runs"])],
        devices=list(dict.fromkeys(run["device"] for run in report["runs"])),
    )
    return html.page(f"Unmask benchmark, {report['started']}", body, style=STYLE)


def _figures(report: dict[str, Any]) -> list[tuple[str, bool, str]]:
    """Title, whether it takes the page's whole width, and SVG of each plot that has something to show."""
    runs = [run for run in report["runs"] if run["latency_ms"]]
    if not runs:
        return []
    roofline = report["roofline"] and report["roofline"]["throughput"]["photos_per_second"]
    figures = [("Latency by throughput", False, plots.curve(runs, roofline))]
    loads = dict.fromkeys((run["protocol"], run["device"]) for run in runs)
    groups = [[run for run in runs if (run["protocol"], run["device"]) == load] for load in loads]
    # Half of the capacity is where a service is run; without an open loop, the load with the most clients.
    usual = [min(group, key=lambda run: abs((run["share"] or 9) - 0.5)) for group in groups]
    saturated = [max(group, key=lambda run: run["users"] or 0) for group in groups]
    figures.append(("Latency by share of requests", False, plots.percentiles(usual)))
    if any(run["stack"] for run in runs):
        figures.append(("Where the time of a request goes", True, plots.stages(runs)))
    figures.append(("Throughput over time, most clients", False, plots.over_time(saturated)))
    figures.append(("Latency over time, most clients", False, plots.latency_over_time(saturated)))
    return figures


def _number(value: float | None) -> str:
    """A count in full, a measurement to three digits, thousands apart; a dash for what was not measured."""
    if value is None:
        return "–"
    digits = 0 if isinstance(value, int) else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"
