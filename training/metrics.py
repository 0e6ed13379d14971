"""Metrics with bootstrap intervals: each is computed for all resamples at once, as weighted sums.

A resample is a row of counts, how often each photo was drawn; the point estimate is the row of ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 1000
ECE_BINS = 15
HISTOGRAM_BINS = 20
CHUNK = 4_000_000  # elements of a counts matrix worked on at once: 32 MB


def roc_auc(labels: NDArray[np.int64], scores: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve, ties counting half (Mann–Whitney); [B] for weights [B, n]."""
    order, groups = _by_score(scores)
    w, fake = weights[:, order], labels[order] == 1
    positives, negatives = _grouped(w * fake, groups), _grouped(w * ~fake, groups)
    below = np.cumsum(negatives, axis=1) - negatives
    return (positives * (below + negatives / 2)).sum(1) / (positives.sum(1) * negatives.sum(1))


def average_precision(labels: NDArray[np.int64], scores: Floats, weights: Floats) -> Floats:
    """Precision summed over recall steps, without interpolation; [B] for weights [B, n]."""
    order, groups = _by_score(-scores)
    w, fake = weights[:, order], labels[order] == 1
    hits, drawn = _grouped(w * fake, groups), _grouped(w, groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.nan_to_num(np.cumsum(hits, axis=1) / np.cumsum(drawn, axis=1))
    return (hits * precision).sum(1) / hits.sum(1)


def _by_score(scores: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ascending order, and where in it each run of equal scores begins."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    return order, np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def _grouped(values: Floats, starts: NDArray[np.int64]) -> Floats:
    return np.add.reduceat(values, starts, axis=1)


def confusion(labels: NDArray[np.int64], flagged: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """True negatives, false positives, false negatives, true positives: [B] each."""
    fake = labels == 1
    cells = (~fake & ~flagged, ~fake & flagged, fake & ~flagged, fake & flagged)
    tn, fp, fn, tp = (weights @ cell.astype(np.float64) for cell in cells)
    return tn, fp, fn, tp


def decisions(labels: NDArray[np.int64], flagged: NDArray[np.bool_], weights: Floats) -> dict[str, Floats]:
    """Accuracy, and precision, recall and F1 of the class fake (0 where nothing is flagged)."""
    tn, fp, fn, tp = confusion(labels, flagged, weights)
    return {
        "accuracy": (tn + tp) / (tn + fp + fn + tp),
        "precision": tp / np.maximum(tp + fp, 1e-12),
        "recall": tp / np.maximum(tp + fn, 1e-12),
        "f1": 2 * tp / np.maximum(2 * tp + fp + fn, 1e-12),
    }


def probability_errors(labels: NDArray[np.int64], p: Floats, weights: Floats) -> dict[str, Floats]:
    """Brier score, log-loss (p kept 1e-7 from 0 and 1, what float32 can tell from 1) and calibration error."""
    total, y, kept = weights.sum(1), labels.astype(np.float64), np.clip(p, 1e-7, 1 - 1e-7)
    return {
        "brier": weights @ (p - y) ** 2 / total,
        "log_loss": weights @ -(y * np.log(kept) + (1 - y) * np.log(1 - kept)) / total,
        "ece": np.abs(weights @ _bin_membership(p, (y - p))).sum(1) / total,
    }


def _bin_membership(p: Floats, values: Floats) -> Floats:
    """float64[n, bins]: `values` in the column of its photo's bin, zero elsewhere."""
    table = np.zeros((len(p), ECE_BINS))
    table[np.arange(len(p)), equal_mass_bins(p)] = values
    return table


def equal_mass_bins(p: Floats, bins: int = ECE_BINS) -> NDArray[np.int64]:
    """The bin of each probability, with as near as can be the same number in each; equal ones share a bin.

    Equal-mass bins have less bias than equal-width ones (Roelofs et al., arXiv 2012.08668).
    """
    ranked = np.sort(p)
    edges = ranked[[round(k * len(p) / bins) for k in range(1, bins) if round(k * len(p) / bins) < len(p)]]
    return np.searchsorted(np.unique(edges), p, side="right")


def resample_counts(labels: NDArray[np.int64], n: int, rng: np.random.Generator) -> Floats:
    """float64[n, N]: how often each photo is in each stratified bootstrap resample (as many of each class as there are)."""
    counts = np.zeros((n, len(labels)))
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        counts[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=n)
    return counts


def with_intervals(
    compute: Callable[[Floats], dict[str, Floats]], labels: NDArray[np.int64], *, seed: int, resamples: int = RESAMPLES
) -> dict[str, dict[str, float]]:
    """Value and 95 % percentile interval of each metric that `compute` gives for weights [B, n]."""
    point = compute(np.ones((1, len(labels))))
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(labels))
    drawn = [compute(resample_counts(labels, min(rows, resamples - i), rng)) for i in range(0, resamples, rows)]
    result = {}
    for name, value in point.items():
        low, high = np.percentile(np.concatenate([d[name] for d in drawn]), [2.5, 97.5])
        result[name] = {"value": float(value[0]), "low": float(low), "high": float(high)}
    return result


def evaluate(
    labels: NDArray[np.int64],
    raw: NDArray[np.floating],
    calibrated: NDArray[np.floating],
    *,
    threshold: float = 0.5,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is reported of scores on labelled photos, as JSON values.

    labels: 0 real, 1 fake. Ranking (AUC, average precision) is judged on the raw probability, since the plateaus of a
    calibration curve make ties; decisions on the calibrated one at `threshold`; Brier, log-loss and ECE on both.
    """
    ranked, p = raw.astype(np.float64), calibrated.astype(np.float64)
    flagged = p >= threshold

    def compute(weights: Floats) -> dict[str, Floats]:
        before, after = (probability_errors(labels, scores, weights) for scores in (ranked, p))
        return {
            "auc": roc_auc(labels, ranked, weights),
            "average_precision": average_precision(labels, ranked, weights),
            **decisions(labels, flagged, weights),
            **{f"{name}_raw": value for name, value in before.items()},
            **after,
        }

    cells = confusion(labels, flagged, np.ones((1, len(labels))))
    return {
        **with_intervals(compute, labels, seed=seed),
        "confusion": dict(zip(("tn", "fp", "fn", "tp"), (int(cell[0]) for cell in cells), strict=True)),
        "threshold": threshold,
        "n": len(labels),
    }


def score_histogram(calibrated: NDArray[np.floating], bins: int = HISTOGRAM_BINS) -> dict[str, list[float]]:
    """{"edges": bins + 1 numbers from 0 to 1, "counts": bins numbers}: what production scores are held against for drift."""
    counts, edges = np.histogram(calibrated, bins=bins, range=(0, 1))
    return {"edges": [float(e) for e in edges], "counts": [int(c) for c in counts]}
