"""The report: one HTML page that needs nothing else, and its plots as PNG files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup
from numpy.typing import NDArray

from detector.display import html
from detector.files import atomic_write, write_json
from training.calibration.methods import METHODS
from training.evaluation.evaluate import Evaluation
from training.evaluation.metrics import LOW_FPR, tpr_key
from training.evaluation.mistakes import Mistake
from training.options import without_places
from training.report import plots
from training.report.page import BODY, STYLE
from training.report.summary import ANSWERS, interval

RANKING = (
    ("auc", "ROC AUC"),
    ("average_precision", "Average precision"),
    ("eer", "Equal error rate"),
    *((tpr_key(rate), f"TPR at {100 * rate:g} % FPR") for rate in LOW_FPR),
)
DECISIONS = (("accuracy", "Accuracy"), ("precision", "Precision"), ("recall", "Recall (TPR)"), ("f1", "F1"), ("fpr", "FPR"))
PROBABILITIES = (
    ("brier", "Brier score"),
    ("log_loss", "Log-loss"),
    ("ece", "ECE"),
    ("smooth_ece", "Smooth ECE"),
    ("brier_skill", "Brier skill"),
)
PARTS = {"fit": "fitted on", "tune": "tuned on", "calibrate": "calibrated on", "validation": "reported on"}
PLOT_SIZE = (828, 630)  # pixels
ROWS = 50  # of a long table; the JSON beside it has all


def write_report(
    directory: Path,
    metrics: dict[str, Any],
    labels: NDArray[np.int64],
    raw: NDArray[np.float32],
    calibrated: NDArray[np.float32],
    mistakes: Sequence[Mistake] = (),
) -> Path:
    """Write `index.html` and the PNGs from the scores and what `metrics.json` of a run, or an evaluation, holds.

    What an evaluation, or a run without training, does not have (epochs, arguments) is left out. Returns the page's path.
    """
    directory.mkdir(parents=True, exist_ok=True)
    images = {}
    for name, plot in _plots(metrics, labels, raw.astype(np.float64), calibrated.astype(np.float64)).items():
        images[name] = plots.render(plot)
        (directory / f"{name}.png").write_bytes(images[name].light)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["interval"] = lambda value: Markup("{} <span>{}</span>").format(*interval(value).split())
    title = _title(metrics)
    body = environment.from_string(BODY).render(
        title=title,
        m={**metrics, "arguments": without_places(metrics.get("arguments") or {})},  # reports travel to other machines
        v=metrics["validation"],
        plot=lambda name, alt: Markup(html.picture(images[name], alt, *PLOT_SIZE)),  # noqa: S704
        mistakes=[(m, html.inline(m.photo, "jpeg"), html.inline(m.heatmap, "jpeg")) for m in mistakes],
        told={name: _flat(metrics[key]) for key, name in (("audit", "Checks of the photos"),) if metrics.get(key)},
        faults=_flat(metrics.get("faults") or {}),
        time=_time(metrics),
        parts=PARTS,
        ranking=RANKING,
        decisions=DECISIONS,
        answers=ANSWERS,
        probabilities=PROBABILITIES,
        methods=METHODS,
        rows=ROWS,
    )
    path = directory / "index.html"
    with atomic_write(path) as partial:
        partial.write_text(html.page(title, body, style=STYLE), encoding="utf-8", errors="backslashreplace")
    return path


def write_evaluation(directory: Path, evaluation: Evaluation) -> Path:
    """Write `evaluation.json` and the report page of an evaluation; returns the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "evaluation.json", evaluation.result)
    return write_report(
        directory / "report",
        evaluation.result,
        evaluation.labels,
        evaluation.raw,
        evaluation.calibrated,
        evaluation.mistakes,
    )


def _plots(
    metrics: dict[str, Any], labels: NDArray[np.int64], raw: NDArray[np.float64], calibrated: NDArray[np.float64]
) -> dict[str, plots.Plot]:
    v = metrics["validation"]
    drawn = {
        "roc": plots.roc(labels, raw, v["auc"]),
        "pr": plots.precision_recall(labels, raw, v["average_precision"]),
        "confusion": plots.confusion_matrix(v["confusion"]),
        "reliability": plots.reliability(labels, raw, calibrated),
        "scores_raw": plots.score_histograms(labels, raw, "raw probability of fake"),
        "scores": plots.score_histograms(
            labels, calibrated, "calibrated probability of fake", v["threshold"], metrics.get("uncertain")
        ),
    }
    if answered := metrics.get("abstention"):
        drawn["coverage"] = plots.risk_coverage(labels, calibrated, v["threshold"], answered)
    if history := metrics.get("history"):
        drawn["loss"] = plots.curves(history, metrics["best_epoch"], "loss", "loss (cross-entropy)")
        drawn["auc"] = plots.curves(history, metrics["best_epoch"], "auc", "AUC")
    if corrupted := metrics.get("robustness"):
        drawn |= {
            f"robustness_{name}": plots.robustness(kind, corrupted["untouched"]) for name, kind in corrupted["kinds"].items()
        }
    return drawn


def _time(metrics: dict[str, Any]) -> dict[str, float]:
    """Percentages of an average second of training; empty without any."""
    epochs = metrics.get("speed", {}).get("epochs") or []
    whole = sum(epoch["seconds"] for epoch in epochs)
    if not metrics.get("history") or not whole:
        return {}
    fitting = sum(epoch["fitting_seconds"] for epoch in epochs)
    waiting = sum(epoch["fitting_seconds"] * epoch["waiting_for_photos"] for epoch in epochs)
    parts = {"steps": fitting - waiting, "waiting": waiting, "judging": whole - fitting}
    return {name: 100 * seconds / whole for name, seconds in parts.items()}


def _title(metrics: dict[str, Any]) -> str:
    if "arguments" not in metrics:
        return f"Evaluation: {metrics['model']} on {metrics['data']}"
    model = metrics["arguments"]["model"]
    return f"Training report: {model}" if metrics.get("history") else f"Report: {model}"


def _flat(values: Any) -> list[tuple[str, str]]:
    """Names and values to show, one level of nesting opened."""
    if not isinstance(values, dict):
        return [("", _shown(values))]
    rows = []
    for key, value in values.items():
        nested = value.items() if isinstance(value, dict) and value and "low" not in value else [(None, value)]
        rows += [(" · ".join(_words(k) for k in (key, inner) if k is not None), _shown(said)) for inner, said in nested]
    return rows


def _words(key: Any) -> str:
    return str(key).replace("_", " ")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
        return interval(value)
    if isinstance(value, dict):
        return ", ".join(f"{_words(k)} {_shown(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        if not value:
            return "none"
        rest = f" and {len(value) - 5} more" if len(value) > 5 else ""
        return ", ".join(_shown(v) for v in value[:5]) + rest
    return str(value)
