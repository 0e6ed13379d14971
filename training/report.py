"""The report: one HTML page that needs nothing else, and its plots as PNG files beside it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from numpy.typing import NDArray

from training import plots
from training.report_page import PAGE

RANKING = (("auc", "ROC AUC"), ("average_precision", "Average precision"))
DECISIONS = (("accuracy", "Accuracy"), ("precision", "Precision"), ("recall", "Recall"), ("f1", "F1"))
PROBABILITIES = (("brier", "Brier score"), ("log_loss", "Log-loss"), ("ece", "Calibration error (ECE)"))
PARTS = {"fit": "fitted on", "tune": "tuned on", "calibrate": "calibrated on", "validation": "reported on"}


def write_report(
    directory: Path,
    metrics: dict[str, Any],
    labels: NDArray[np.int64],
    raw: NDArray[np.float32],
    calibrated: NDArray[np.float32],
) -> Path:
    """Write `index.html` and the PNGs from the scores and what `metrics.json` of a run, or an evaluation, holds.

    What an evaluation does not have (epochs, arguments) is left out. Returns the page's path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    validation = metrics["validation"]
    p, q = raw.astype(np.float64), calibrated.astype(np.float64)
    drawn = {
        "roc": plots.roc(labels, p, validation["auc"]),
        "confusion": plots.confusion_matrix(validation["confusion"]),
        "reliability": plots.reliability(labels, p, q),
    }
    if history := metrics.get("history"):
        drawn["loss"] = plots.curves(history, metrics["best_epoch"], "loss", "loss (cross-entropy)")
        drawn["auc"] = plots.curves(history, metrics["best_epoch"], "auc", "AUC")
        title = f"Training report: {metrics['arguments']['model']}"
    else:
        title = f"Evaluation: {metrics['model']} on {metrics['data']}"
    images = {}
    for name, plot in drawn.items():
        light = plots.render(plot)
        (directory / f"{name}.png").write_bytes(light)
        images[name] = {"light": _inline(light), "dark": _inline(plots.render(plot, dark=True))}
    page = directory / "index.html"
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["interval"] = lambda value: Markup("{} <span>{}</span>").format(*_interval(value).split())
    page.write_text(
        environment.from_string(PAGE).render(
            title=title,
            m=metrics,
            v=validation,
            images=images,
            parts=PARTS,
            ranking=RANKING,
            decisions=DECISIONS,
            probabilities=PROBABILITIES,
        ),
        encoding="utf-8",
    )
    return page


def summary(metrics: dict[str, Any], out: Path) -> str:
    """What a person wants to read when training has ended."""
    v = metrics["validation"]
    after = f"{v['ece_raw']['value']:.3f} before calibration, {v['ece']['value']:.3f} after"
    return "\n".join(
        [
            f"validation, {v['n']} photos: AUC {_interval(v['auc'])}, accuracy {_interval(v['accuracy'])}",
            f"calibration error: {after}",
            f"report: {out / 'report' / 'index.html'}",
            f"next:   python -m export --run {out} --out artifacts/",
        ]
    )


def _interval(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
