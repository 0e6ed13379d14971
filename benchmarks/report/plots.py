"""The report's plots, for a light and for a dark page: latency by percentile, and throughput and latency over time."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator, ScalarFormatter

from detector.html import LIGHT, Picture, in_both_themes

COLOURS = {"rest": LIGHT.first, "grpc": LIGHT.second}
LABELS = {"rest": "REST", "grpc": "gRPC"}
SIZE, DPI = (4.6, 3.1), 180
Run = dict[str, Any]  # one entry of the report's `runs`


def percentiles(runs: Sequence[Run]) -> Picture:
    """Latency by percentile; the axis stretches towards 100 so that the tail can be read."""
    figure, axes = _canvas("share of requests answered within", "latency (ms)")
    ticks: list[float] = [0]
    for run in runs:
        curve = run["percentiles"]
        if not curve:
            continue
        axes.plot([_tail(q) for q, _ in curve], [ms for _, ms in curve], marker="o", ms=3.5, **_style(run))
        ticks = max(ticks, [q for q, _ in curve if q in (0, 50, 90, 99, 99.9, 99.99)], key=len)
    axes.xaxis.set_major_locator(FixedLocator([_tail(q) for q in ticks]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{q:g} %" for q in ticks]))
    axes.xaxis.set_minor_locator(NullLocator())
    _log_milliseconds(axes)
    return _drawn(figure, axes)


def throughput(runs: Sequence[Run]) -> Picture:
    """Requests answered in each second."""
    figure, axes = _canvas("seconds since the first request", "answers per second")
    for run in runs:
        rows = run["timeline"]
        axes.plot([r["second"] + 0.5 for r in rows], [r["requests"] for r in rows], marker="o", ms=3, **_style(run))
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    return _drawn(figure, axes)


def latency(runs: Sequence[Run]) -> Picture:
    """Median and 99th percentile of latency in each second."""
    figure, axes = _canvas("seconds since the first request", "latency (ms)")
    for run in runs:
        rows = [r for r in run["timeline"] if "p50" in r]
        at, style = [r["second"] + 0.5 for r in rows], _style(run)
        axes.plot(at, [r["p50"] for r in rows], **{**style, "label": f"{style['label']} p50"})
        axes.plot(at, [r["p99"] for r in rows], linestyle=":", **{**style, "label": f"{style['label']} p99"})
    axes.set_xlim(left=0)
    _log_milliseconds(axes)
    return _drawn(figure, axes)


def _tail(percentile: float) -> float:
    """Place on the axis: one step for each tenfold rarer request."""
    return -log10(1 - percentile / 100)


def _canvas(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained", facecolor=LIGHT.paper)
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel, color=LIGHT.ink)
    axes.set_ylabel(ylabel, color=LIGHT.ink)
    axes.tick_params(colors=LIGHT.ink, labelsize=9)
    axes.grid(color=LIGHT.line, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(LIGHT.line)
    return figure, axes


def _style(run: Run) -> dict[str, Any]:
    return {"color": COLOURS[run["protocol"]], "label": LABELS[run["protocol"]], "linewidth": 1.8}


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


def _drawn(figure: Figure, axes: Axes) -> Picture:
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=9, labelcolor=LIGHT.ink, handlelength=1.4)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return in_both_themes(np.asarray(canvas.buffer_rgba())[..., :3])
