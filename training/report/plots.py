"""The report's plots, for a light and for a dark page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from detector.display.html import LIGHT, Picture, in_both_themes
from training.evaluation import abstention as selective
from training.evaluation.metrics import equal_mass_bins, wilson

# Narrow figures with large type, so that they can be read at the width of a phone.
SIZE = (4.6, 3.5)
DPI = 180
BLUE, ORANGE, GREY = LIGHT.first, LIGHT.second, "#8a8f98"
STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "figure.facecolor": LIGHT.paper,
    "axes.facecolor": LIGHT.paper,
    "grid.color": LIGHT.line,
    "text.color": LIGHT.ink,
    "axes.labelcolor": LIGHT.ink,
    "axes.edgecolor": LIGHT.ink,
    "xtick.color": LIGHT.ink,
    "ytick.color": LIGHT.ink,
}
Plot = Callable[[Axes], None]


def render(plot: Plot) -> Picture:
    """What `plot` draws on its axes. It is drawn once, in the colours of the light theme."""
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        plot(figure.add_subplot())
        canvas.draw()
    return in_both_themes(np.asarray(canvas.buffer_rgba())[..., :3])


def curves(history: list[dict[str, Any]], best_epoch: int, what: str, label: str) -> Plot:
    """`train_what` and `tune_what` over the epochs, the kept epoch marked."""

    def draw(axes: Axes) -> None:
        epochs = [row["epoch"] for row in history]
        marker = "o" if len(epochs) < 30 else None
        parts = [("train", BLUE, "fitting"), ("tune", ORANGE, "tuning")]
        for part, colour, name in [part for part in parts if f"{part[0]}_{what}" in history[0]]:
            axes.plot(
                epochs, [row[f"{part}_{what}"] for row in history], color=colour, label=name, marker=marker, markersize=3.5
            )
        axes.axvline(best_epoch, color=GREY, linestyle="--", linewidth=1.2, label=f"kept: epoch {best_epoch}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.set(xlabel="epoch", ylabel=label)
        _legend(axes, columns=3)

    return draw


def _legend(axes: Axes, columns: int) -> None:
    """Above the axes, where no data is."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, columnspacing=1.2, handlelength=1.5)


def roc(labels: NDArray[np.int64], scores: NDArray[np.float64], auc: dict[str, float]) -> Plot:
    """True against false positive rate over all thresholds."""
    from sklearn.metrics import roc_curve

    false_rate, true_rate, _ = roc_curve(labels, scores)

    def draw(axes: Axes) -> None:
        text = f"AUC {auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f})"
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2)
        axes.plot(false_rate, true_rate, color=BLUE, label=text)
        axes.set(xlabel="real photos flagged as fake", ylabel="fakes found", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        _legend(axes, columns=1)

    return draw


def precision_recall(labels: NDArray[np.int64], scores: NDArray[np.float64], average: dict[str, float]) -> Plot:
    """Precision against recall over all thresholds, with the precision of calling everything fake."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)

    def draw(axes: Axes) -> None:
        text = f"AP {average['value']:.3f} ({average['low']:.3f}–{average['high']:.3f})"
        axes.axhline(labels.mean(), color=GREY, linestyle="--", linewidth=1.2)
        axes.plot(recall, precision, color=BLUE, label=text, drawstyle="steps-post")
        axes.set(xlabel="fakes found (recall)", ylabel="flagged photos that are fake", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        _legend(axes, columns=1)

    return draw


def score_histograms(
    labels: NDArray[np.int64],
    p: NDArray[np.float64],
    what: str,
    threshold: float | None = None,
    band: Sequence[float] | None = None,
) -> Plot:
    """How many photos of each class have which probability, as shares of their class; threshold and band marked."""

    def draw(axes: Axes) -> None:
        edges = np.linspace(0, 1, 26)
        for label, colour, name in ((0, BLUE, "real"), (1, ORANGE, "fake")):
            own = p[labels == label]
            shares = np.histogram(own, edges)[0] / max(len(own), 1)
            axes.stairs(shares, edges, color=colour, fill=True, alpha=0.35)
            axes.stairs(shares, edges, color=colour, linewidth=1.6, label=name)
        if band and band[0] < band[1]:
            axes.axvspan(*band, color=GREY, alpha=0.2, lw=0, label="Uncertain")
        elif threshold is not None:
            axes.axvline(threshold, color=GREY, linestyle="--", linewidth=1.2, label=f"threshold {threshold:.3g}")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set(xlabel=what, ylabel="share of the class", xlim=(-0.01, 1.01))
        _legend(axes, columns=3)

    return draw


def risk_coverage(labels: NDArray[np.int64], p: NDArray[np.float64], threshold: float, answered: dict[str, Any]) -> Plot:
    """The error among the answers against their share, when the surest photos are answered first; and what the band does."""
    coverage, error = selective.risk_coverage(labels, p, threshold)
    intervals = [wilson(share * n, n) for share, n in zip(error, np.rint(coverage * len(p)).astype(int).tolist(), strict=True)]

    def draw(axes: Axes) -> None:
        low, high = ([i[end] for i in intervals] for end in ("low", "high"))
        axes.fill_between(coverage, low, high, color=BLUE, alpha=0.2, lw=0)
        axes.plot(coverage, error, color=BLUE, marker="o" if len(error) < 30 else None, markersize=3, label="surest first")
        if answered["error"]:
            at = (answered["coverage"]["value"], answered["error"]["value"])
            axes.plot(*at, color=ORANGE, marker="o", markersize=8, linestyle="none", label="the band")
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set(xlabel="photos that are answered", ylabel="wrong answers among them", xlim=(-0.01, 1.02), ylim=(0, None))
        _legend(axes, columns=2)

    return draw


def robustness(kind: dict[str, Any], untouched: dict[str, dict[str, float]]) -> Plot:
    """AUC and accuracy, with 95 % intervals, from untouched photos to the worst level."""

    def draw(axes: Axes) -> None:
        rows = [untouched, *kind["levels"]]
        at = np.arange(len(rows))
        for what, colour, name in (("auc", BLUE, "AUC"), ("accuracy", ORANGE, "accuracy")):
            axes.fill_between(
                at, [r[what]["low"] for r in rows], [r[what]["high"] for r in rows], color=colour, alpha=0.2, lw=0
            )
            axes.plot(at, [r[what]["value"] for r in rows], color=colour, marker="o", markersize=4, label=name)
        axes.axhline(0.5, color=GREY, linestyle="--", linewidth=1.2, label="chance")
        axes.set_xticks(at, ["as is", *(f"{row['level']:g}" for row in kind["levels"])])
        lowest = min(row[what]["low"] for row in rows for what in ("auc", "accuracy"))
        axes.set(xlabel=kind["unit"], ylim=(min(0.45, lowest - 0.02), 1.01))
        _legend(axes, columns=3)

    return draw


def confusion_matrix(cells: dict[str, int]) -> Plot:
    """The four counts, each with its share of the true class."""

    def draw(axes: Axes) -> None:
        table = np.array([[cells["tn"], cells["fp"]], [cells["fn"], cells["tp"]]])
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        shades = LinearSegmentedColormap.from_list("shades", [LIGHT.paper, BLUE])
        axes.imshow(shares, cmap=shades, vmin=0, vmax=1, aspect="auto")
        for (row, column), n in np.ndenumerate(table):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{n}\n{share:.1%}",
                ha="center",
                va="center",
                fontsize=13,
                color=LIGHT.paper if share > 0.5 else LIGHT.ink,
            )
        axes.set_xticks([0, 1], ["Real", "Fake"])
        axes.set_yticks([0, 1], ["Real", "Fake"])
        axes.set(xlabel="verdict", ylabel="truth")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    return draw


def reliability(labels: NDArray[np.int64], raw: NDArray[np.float64], calibrated: NDArray[np.float64]) -> Plot:
    """How often photos given a probability really are fake, before and after calibration, in ten equal-mass bins."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfect")
        for p, colour, name in ((raw, ORANGE, "as scored"), (calibrated, BLUE, "calibrated")):
            bins = equal_mass_bins(p, 10)
            used, n = np.unique(bins, return_counts=True)
            said = np.array([p[bins == b].mean() for b in used])
            true = np.array([labels[bins == b].mean() for b in used])
            intervals = [wilson(share * size, size) for share, size in zip(true, n, strict=True)]
            reach = np.array([[i["value"] - i["low"] for i in intervals], [i["high"] - i["value"] for i in intervals]])
            reach = np.maximum(reach, 0)
            axes.errorbar(said, true, yerr=reach, color=colour, marker="o", markersize=4, elinewidth=0.9, label=name)
        axes.set(
            xlabel="probability of fake that was given", ylabel="share that was fake", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
        )
        _legend(axes, columns=3)

    return draw
