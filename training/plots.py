"""The report's plots, as PNG bytes, each for a light and for a dark page."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from training.metrics import equal_mass_bins

# Narrow figures with large type, so that they can be read at the width of a phone.
SIZE = (4.6, 3.5)
DPI = 180
# Okabe & Ito's palette, told apart with any colour vision.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8a8f98"
DARK_BLUE, DARK_ORANGE = "#56B4E9", "#E69F00"
Plot = Callable[[Axes, "Palette"], None]


class Palette:
    """Colours of one theme."""

    def __init__(self, dark: bool) -> None:
        self.first, self.second = (DARK_BLUE, DARK_ORANGE) if dark else (BLUE, ORANGE)
        self.ink, self.paper, self.grid = ("#e6e8eb", "#16191d", "#343a42") if dark else ("#1d2126", "#ffffff", "#dfe3e8")


def render(plot: Plot, *, dark: bool = False) -> bytes:
    """A PNG of what `plot` draws on its axes."""
    palette = Palette(dark)
    with rc_context(_style(palette)):
        figure = Figure(figsize=SIZE, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        plot(figure.add_subplot(), palette)
        out = BytesIO()
        figure.savefig(out, format="png")
    return out.getvalue()


def _style(palette: Palette) -> Any:
    return {
        "font.size": 10.5,
        "axes.titlesize": 10.5,
        "legend.fontsize": 9.5,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "lines.linewidth": 1.8,
        "figure.facecolor": palette.paper,
        "axes.facecolor": palette.paper,
        "grid.color": palette.grid,
        "text.color": palette.ink,
        "axes.labelcolor": palette.ink,
        "axes.edgecolor": palette.ink,
        "xtick.color": palette.ink,
        "ytick.color": palette.ink,
    }


def curves(history: list[dict[str, Any]], best_epoch: int, what: str, label: str) -> Plot:
    """`train_what` and `tune_what` over the epochs, the kept epoch marked."""

    def draw(axes: Axes, palette: Palette) -> None:
        epochs = [row["epoch"] for row in history]
        marker = "o" if len(epochs) < 30 else None
        for part, colour, name in (("train", palette.first, "fitting"), ("tune", palette.second, "tuning")):
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

    def draw(axes: Axes, palette: Palette) -> None:
        text = f"AUC {auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f})"
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2)
        axes.plot(false_rate, true_rate, color=palette.first, label=text)
        axes.set(xlabel="real photos flagged as fake", ylabel="fakes found", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        _legend(axes, columns=1)

    return draw


def confusion_matrix(cells: dict[str, int]) -> Plot:
    """The four counts, each with its share of the true class."""

    def draw(axes: Axes, palette: Palette) -> None:
        table = np.array([[cells["tn"], cells["fp"]], [cells["fn"], cells["tp"]]])
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (row, column), n in np.ndenumerate(table):
            share = shares[row, column]
            axes.text(
                column,
                row,
                f"{n}\n{share:.1%}",
                ha="center",
                va="center",
                fontsize=13,
                color="white" if share > 0.5 else "#1d2126",
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

    def draw(axes: Axes, palette: Palette) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="perfect")
        for p, colour, name in ((raw, palette.second, "as scored"), (calibrated, palette.first, "calibrated")):
            bins = equal_mass_bins(p, 10)
            used, n = np.unique(bins, return_counts=True)
            said = np.array([p[bins == b].mean() for b in used])
            true = np.array([labels[bins == b].mean() for b in used])
            # 95 % Wilson intervals, which stay inside [0, 1] and have a width at 0 and 1 too
            z = 1.96
            centre = (true + z**2 / (2 * n)) / (1 + z**2 / n)
            half = z / (1 + z**2 / n) * np.sqrt(true * (1 - true) / n + z**2 / (4 * n**2))
            reach = np.abs(np.stack([true - (centre - half), centre + half - true]))
            axes.errorbar(said, true, yerr=reach, color=colour, marker="o", markersize=4, elinewidth=0.9, label=name)
        axes.set(
            xlabel="probability of fake that was given", ylabel="share that was fake", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02)
        )
        _legend(axes, columns=3)

    return draw
