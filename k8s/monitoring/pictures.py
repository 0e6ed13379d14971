"""Draw the dashboards with matplotlib, from the queries of their panels and a Prometheus: pictures for where no Grafana is.

`python -m k8s.monitoring.pictures --prometheus http://127.0.0.1:9090 --minutes 5 --out docs/explanation/dashboards`
"""

from __future__ import annotations

import argparse
import math
import re
import time
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from k8s.monitoring.queries import Panel, boards, panels

POINTS = 120  # of a line
COLUMN, ROW, HEAD = 0.62, 0.36, 0.42  # inches of Grafana's columns and rows, and of a row's title
Series = tuple[str, list[float], list[float]]
_NAMED = {"green": "#37872d", "yellow": "#e0b400", "orange": "#e0752d", "red": "#c4162a"}
_LEVELS = (_NAMED["green"], _NAMED["orange"], _NAMED["red"])  # below, between and above a panel's limits
STYLE = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e8",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.edgecolor": "#9a9aa2",
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "unmask",
}


class Source:
    """A Prometheus, and the minutes that are drawn, up to `end`, or to now."""

    def __init__(self, url: str, minutes: float, end: float | None = None) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/v1/", timeout=60, trust_env=False)
        self.end = end or time.time()
        self.start = self.end - 60 * minutes

    def lines(self, expression: str, name: str) -> list[Series]:
        """Each series that a query answers: its legend, minutes from the start and values."""
        step = (self.end - self.start) / POINTS
        given = {"query": expression, "start": self.start, "end": self.end, "step": step}
        found = []
        for each in self._get("query_range", given):
            points = [((at - self.start) / 60, float(value)) for at, value in each["values"] if math.isfinite(float(value))]
            found.append((legend(each["metric"], name), [x for x, _ in points], [y for _, y in points]))
        return sorted(found, key=lambda series: natural(series[0]))

    def now(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Each series that a query answers at the end: labels and value."""
        return [
            (each["metric"], float(each["value"][1])) for each in self._get("query", {"query": expression, "time": self.end})
        ]

    def _get(self, path: str, given: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self._http.get(path, params=given).json()
        if answer["status"] != "success":
            raise SystemExit(f"error: {given['query']}: {answer['error']}")
        data = answer["data"]
        return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]


def legend(labels: dict[str, str], name: str) -> str:
    """A series' name: its labels in the places of the legend."""
    if name == "__auto":
        return ", ".join(f"{key}={value}" for key, value in labels.items() if key != "__name__")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), name)


def natural(text: str) -> list[tuple[int, float, str]]:
    """A key that sorts numbers in text by their value."""
    return [
        (0, float(part), "") if part[:1].isdigit() else (1, 0.0, part) for part in re.split(r"(\d+(?:\.\d+)?)", text) if part
    ]


def shown(value: float, unit: str) -> str:
    """A value with its unit, as short as can be read."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
    if unit == "bytes":
        return f"{value / 1e9:.3g} GB" if value >= 1e9 else f"{value / 1e6:.3g} MB"
    return f"{value:.3g}" + {"reqps": "/s", "watt": " W"}.get(unit, "")


def draw(board: str, source: Source, window: str) -> Figure:
    """A dashboard's picture, each panel in its place."""
    found = list(panels(board, window))
    rows = list(dict.fromkeys(panel.row for panel in found))
    bottom = max(panel.place[1] + panel.place[3] for panel in found)
    height = bottom * ROW + len(rows) * HEAD
    figure = plt.figure(figsize=(24 * COLUMN, height))
    for number, row in enumerate(rows, 1):
        mine = [panel for panel in found if panel.row == row]
        top = min(panel.place[1] for panel in mine)
        y = height - top * ROW - number * HEAD
        figure.text(0.01, (y + 0.1) / height, row, fontsize=11, fontweight="bold", color="#33333a")
        for panel in mine:
            x, panel_y, width, panel_height = panel.place
            inches = (
                x * COLUMN + 0.62,
                height - (panel_y + panel_height) * ROW - number * HEAD + 0.62,
                width * COLUMN - 0.85,
                panel_height * ROW - 0.95,
            )
            left, low, wide, high = inches
            axes = figure.add_axes((left / (24 * COLUMN), low / height, wide / (24 * COLUMN), high / height))
            _draw_panel(axes, panel, source)
    return figure


def _draw_panel(axes: Axes, panel: Panel, source: Source) -> None:
    axes.set_title(panel.title, loc="left", color="#33333a")
    draws = {"stat": _number, "barchart": _bars, "heatmap": _heat, "table": _table}
    draws.get(panel.type, _lines)(axes, panel, source)


def _lines(axes: Axes, panel: Panel, source: Source) -> None:
    series = [each for target in panel.targets for each in source.lines(target.expression, target.name)]
    series = [each for each in series if each[1]]
    if not series:
        return _nothing(axes)
    if panel.stacked:
        minutes = sorted({x for _, xs, _ in series for x in xs})
        heights = [[dict(zip(xs, ys, strict=True)).get(x, 0.0) for x in minutes] for _, xs, ys in series]
        colors = [_color(name, panel, at) for at, (name, _, _) in enumerate(series)]
        axes.stackplot(minutes, heights, labels=[name for name, _, _ in series], colors=colors, alpha=0.75, linewidth=0)
    else:
        for name, xs, ys in series:
            axes.plot(xs, ys, label=name, linewidth=1.2)
    top = axes.get_ylim()[1]
    for limit in panel.limits:
        if limit <= 1.2 * top:
            axes.axhline(limit, color="#c4162a", linewidth=0.8, linestyle="--")
    axes.set_ylim(0, panel.most or max(axes.get_ylim()[1], 1e-9))
    axes.set_xlim(0, (source.end - source.start) / 60)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, panel.unit)))
    axes.yaxis.get_major_locator().set_params(nbins=5)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False, fontsize=7, handlelength=1.2)
    return None


def _color(name: str, panel: Panel, at: int) -> str:
    """The color of a series: the panel's own by its name, or the next of the cycle."""
    return next((_NAMED[color] for pattern, color in panel.colors.items() if re.fullmatch(pattern, name)), f"C{at}")


def _number(axes: Axes, panel: Panel, source: Source) -> None:
    axes.axis("off")
    values = [value for _, value in source.now(panel.targets[0].expression)]
    if not values:
        return _nothing(axes)
    color = _LEVELS[-1 if len(panel.limits) == 1 and values[0] > panel.limits[0] else 0]
    if len(panel.limits) == 2:
        color = _LEVELS[sum(values[0] > limit for limit in panel.limits)]
    axes.text(0.5, 0.45, shown(values[0], panel.unit), ha="center", va="center", fontsize=20, color=color)
    return None


def _bars(axes: Axes, panel: Panel, source: Source) -> None:
    columns: dict[str, dict[str, float]] = {}
    for target in panel.targets:
        columns[target.name] = {next(iter(labels.values())): value for labels, value in source.now(target.expression)}
    names = sorted({name for values in columns.values() for name in values}, key=natural)
    if not names:
        return _nothing(axes)
    width = 0.8 / len(columns)
    for number, (title, values) in enumerate(columns.items()):
        places = [at + (number - (len(columns) - 1) / 2) * width for at in range(len(names))]
        axes.bar(places, [values.get(name, 0.0) for name in names], width, label=title)
    axes.set_xticks(range(len(names)), names, rotation=0 if len(names) <= 12 else 60)
    axes.grid(False, axis="x")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, panel.unit)))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=4, frameon=False, fontsize=7)
    return None


def _heat(axes: Axes, panel: Panel, source: Source) -> None:
    series = {name: dict(zip(xs, ys, strict=True)) for name, xs, ys in source.lines(panel.targets[0].expression, "{{le}}")}
    bounds = sorted(series, key=float)
    minutes = sorted({x for values in series.values() for x in values})
    if not bounds or len(minutes) < 2:
        return _nothing(axes)
    cells = []
    for number, bound in enumerate(bounds):
        below = series[bounds[number - 1]] if number else {}
        cells.append([max(series[bound].get(x, 0.0) - below.get(x, 0.0), 0.0) for x in minutes])
    edge = minutes[-1] + minutes[1] - minutes[0]
    axes.pcolormesh([*minutes, edge], range(len(bounds) + 1), cells, cmap="Blues", rasterized=True)
    axes.set_yticks([n + 1 for n in range(0, len(bounds), 2)], [_edge(bounds[n], panel) for n in range(0, len(bounds), 2)])
    axes.set_ylim(0, len(bounds))
    axes.grid(False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} min"))
    return None


def _edge(bound: str, panel: Panel) -> str:
    return "∞" if bound == "+Inf" else shown(float(bound), "s" if panel.title == "Durations" else "short")


def _table(axes: Axes, panel: Panel, source: Source) -> None:
    axes.axis("off")
    hidden = {"__name__", "job", "namespace", "service", "endpoint", "container"}
    rows = [{k: v for k, v in labels.items() if k not in hidden} for labels, _ in source.now(panel.targets[0].expression)]
    if not rows:
        return _nothing(axes)
    names = sorted({name for row in rows for name in row})
    cells = [[row.get(name, "")[:22] for name in names] for row in rows]
    made = axes.table(cells, colLabels=names, loc="upper center", cellLoc="left", edges="horizontal")
    made.auto_set_font_size(False)
    made.set_fontsize(7)
    made.scale(1, 1.4)
    return None


def _nothing(axes: Axes) -> None:
    axes.axis("off")
    axes.text(0.5, 0.5, "no data", ha="center", va="center", color="#9a9aa2")


def main() -> None:
    """Draw every dashboard."""
    parser = argparse.ArgumentParser(description="Draw the dashboards from a Prometheus.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL", help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=5.0, help="how many to draw, before `--until`; default: %(default)s")
    parser.add_argument("--until", type=float, metavar="SECONDS", help="since 1970; default: now")
    parser.add_argument("--window", default="1m", help="of rates, in place of $__rate_interval; default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    given = parser.parse_args()
    source = Source(given.prometheus.rstrip("/"), given.minutes, given.until)
    given.out.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        for board in boards():
            figure = draw(board, source, given.window)
            figure.savefig(given.out / f"{board}.png", dpi=72)
            plt.close(figure)


if __name__ == "__main__":
    main()
