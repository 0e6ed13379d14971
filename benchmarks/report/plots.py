"""The report's plots, as SVG: the latency–throughput curve, the stages of a request, latency by percentile and over time."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from math import log10
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, ScalarFormatter

from detector.display import html
from detector.display.html import LIGHT

COLOURS = {"rest": LIGHT.first, "grpc": LIGHT.second}
LABELS = {"rest": "REST", "grpc": "gRPC"}
# The same in both themes; near Okabe & Ito's palette, which is told apart with any colour vision.
STAGES = {
    "queue": "#8c8c8c",
    "read": "#7b5ea7",
    "decode": "#009e73",
    "inference": "#3b8fd0",
    "postprocess": "#cc79a7",
    "explain": "#e6c200",
    "transport": "#d5690f",
}
SIZE = (4.6, 3.1)
Run = dict[str, Any]  # one entry of the report's `runs`


def label(run: Run) -> str:
    """A run in a few words."""
    where = "" if run["device"] == "cpu" else f" {run['device']}"
    how = f"{run['users']} client{'s' if run['users'] != 1 else ''}" if run["loop"] == "closed" else f"{run['rate']:.0f}/s"
    return f"{LABELS[run['protocol']]}{where}, {how}"


def curve(runs: Sequence[Run], roofline: float | None) -> str:
    """Median and 99th percentile of latency against answers per second. Open loops are joined, closed ones stand alone."""
    figure, axes = _canvas("answers per second", "latency (ms)")
    for protocol, device in dict.fromkeys((run["protocol"], run["device"]) for run in runs):
        mine = [run for run in runs if (run["protocol"], run["device"]) == (protocol, device) and run["latency_ms"]]
        mine.sort(key=lambda run: run["rate"] or 0)  # beyond the capacity more requests may have fewer answers
        marker = "o" if device == "cpu" else "s"
        for key, style in (("p50", "-"), ("p99", ":")):
            points = {
                loop: [(run["requests_per_second"], run["latency_ms"][key]) for run in mine if run["loop"] == loop]
                for loop in ("open", "closed")
            }
            joined: dict[str, Any] = {"color": COLOURS[protocol], "linewidth": 1.8, "linestyle": style}
            axes.plot([x for x, _ in points["open"]], [y for _, y in points["open"]], marker=marker, ms=4, **joined)
            alone: dict[str, Any] = {"color": COLOURS[protocol], "linestyle": "", "marker": marker, "ms": 5}
            alone["markerfacecolor"] = LIGHT.paper
            axes.plot([x for x, _ in points["closed"]], [y for _, y in points["closed"]], **alone)
    if roofline:
        axes.axvline(roofline, color=LIGHT.soft, linewidth=1, linestyle="--")
        name = axes.annotate("roofline ", (roofline, 1), xycoords=("data", "axes fraction"), ha="right", va="top")
        name.set(color=LIGHT.soft, in_layout=False)
    axes.set_xlim(left=0)
    _log_milliseconds(axes)
    keys = [_key(LABELS[name], color=COLOURS[name]) for name in dict.fromkeys(run["protocol"] for run in runs)]
    keys += [_key("p50", color=LIGHT.soft), _key("p99", color=LIGHT.soft, linestyle=":")]
    keys += [_key("closed loop", color=LIGHT.soft, linestyle="", marker="o", markerfacecolor=LIGHT.paper)]
    return _drawn(figure, "curve", "Latency by throughput", keys)


def stages(runs: Sequence[Run]) -> str:
    """Where the time of a request goes, as shares of what the client saw; the mean stands at the end of each bar."""
    shown = [run for run in runs if run["stack"]]
    figure, axes = _canvas("share of the mean latency", "", (9.4, 1.0 + 0.3 * len(shown)))
    present = [stage for stage in STAGES if any(run["stack"].get(stage) for run in shown)]
    for place, run in enumerate(shown):
        total, left = sum(run["stack"].values()), 0.0
        for stage in present:
            share = max(0.0, run["stack"].get(stage, 0.0)) / total
            axes.barh(place, share, left=left, height=0.68, color=STAGES[stage], linewidth=0)
            left += share
        axes.annotate(
            f"{total:.3g} ms" if total < 100 else f"{total:.0f} ms",
            (1.01, place),
            va="center",
            annotation_clip=False,
            color=LIGHT.ink,
            fontsize=9,
        )
    axes.set_yticks(range(len(shown)), [label(run) for run in shown])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    keys = [_key(stage, color=STAGES[stage], linewidth=7) for stage in present]
    return _drawn(figure, "stages", "Stages of a request", keys)


def percentiles(runs: Sequence[Run]) -> str:
    """Latency by percentile; the axis stretches towards 100 so that the tail can be read."""
    figure, axes = _canvas("share of requests answered within", "latency (ms)")
    ticks: list[float] = [0]
    for run in runs:
        points = run["percentiles"]
        axes.plot([_tail(q) for q, _ in points], [ms for _, ms in points], marker="o", ms=3.5, **_style(run))
        ticks = max(ticks, [q for q, _ in points if q in (0, 50, 90, 99, 99.9, 99.99)], key=len)
    axes.xaxis.set_major_locator(FixedLocator([_tail(q) for q in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{q:g} %" for q in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    _log_milliseconds(axes)
    return _drawn(figure, "percentiles", "Latency by share of requests", [_key(label(run), **_style(run)) for run in runs])


def over_time(runs: Sequence[Run]) -> str:
    """Requests answered in each second."""
    figure, axes = _canvas("seconds since the first request", "answers per second")
    for run in runs:
        rows = run["timeline"]
        axes.plot([r["second"] + 0.5 for r in rows], [r["requests"] for r in rows], marker="o", ms=3, **_style(run))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    return _drawn(figure, "time", "Throughput over time", [_key(label(run), **_style(run)) for run in runs])


def latency_over_time(runs: Sequence[Run]) -> str:
    """Median and 99th percentile of latency in each second."""
    figure, axes = _canvas("seconds since the first request", "latency (ms)")
    for run in runs:
        rows = [r for r in run["timeline"] if "p50" in r]
        at = [r["second"] + 0.5 for r in rows]
        for key, line in (("p50", "-"), ("p99", ":")):
            axes.plot(at, [r[key] for r in rows], **{**_style(run), "linestyle": line})
    axes.set_xlim(left=0)
    _log_milliseconds(axes)
    keys = [_key(label(run), **_style(run)) for run in runs]
    keys += [_key("p50", color=LIGHT.soft), _key("p99", color=LIGHT.soft, linestyle=":")]
    return _drawn(figure, "latency", "Latency over time", keys)


def _tail(percentile: float) -> float:
    """Place on the axis: one step for each tenfold rarer request."""
    return -log10(1 - percentile / 100)


def _canvas(xlabel: str, ylabel: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.set_xlabel(xlabel, color=LIGHT.ink)
    axes.set_ylabel(ylabel, color=LIGHT.ink)
    axes.tick_params(colors=LIGHT.ink, labelsize=9)
    axes.grid(color=LIGHT.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT.line)
    return figure, axes


def _style(run: Run) -> dict[str, Any]:
    return {"color": COLOURS[run["protocol"]], "linewidth": 1.8, "linestyle": "-" if run["device"] == "cpu" else "--"}


def _key(text: str, **style: Any) -> Line2D:
    return Line2D([], [], label=text, **style)


def _log_milliseconds(axes: Axes) -> None:
    """A logarithmic axis with plain numbers, more of them where it spans less than tenfold."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    digits = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 7, 8)
    steps = [m * 10.0**e for e in range(-2, 6) for m in digits]
    axes.yaxis.set_major_locator(FixedLocator([s for s in steps if low <= s <= high]))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low, high)


def _drawn(figure: Figure, name: str, title: str, keys: Sequence[Line2D]) -> str:
    look = {"frameon": False, "fontsize": 9, "labelcolor": LIGHT.ink, "handlelength": 1.4, "columnspacing": 1.2}
    figure.legend(handles=keys, loc="outside upper left", ncols=7 if figure.get_figwidth() > SIZE[0] else 5, **look)
    out = StringIO()
    # Text stays text, in the page's font; without a date the same numbers give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.sans-serif": ["DejaVu Sans"]}):
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    drawing = out.getvalue().replace("'DejaVu Sans'", "system-ui, 'DejaVu Sans'")
    return html.svg(drawing, title, name)
