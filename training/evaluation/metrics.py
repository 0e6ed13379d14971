"""Metrics with bootstrap intervals: each is computed for all resamples at once, as weighted sums.

A resample is a row of counts, how often each photo was drawn; the point estimate is the row of ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct, idct
from scipy.sparse import csr_array

from detector.verdict import DEFAULT_THRESHOLD

Floats = NDArray[np.float64]
RESAMPLES = 1000
ECE_BINS = 15
GRID = 512  # points at which residuals are smoothed
LOW_FPR = (0.01, 0.001)
HISTOGRAM_BINS = 20
MEASURES = ("brier", "log_loss", "ece", "smooth_ece", "brier_skill")  # of probabilities
DISTANCES = ("ece", "smooth_ece")  # with any suffix
BANDWIDTH_TOLERANCE = 5e-5  # of the smooth calibration error
CHUNK = 4_000_000  # elements of a counts matrix worked on at once: 32 MB


def roc_auc(labels: NDArray[np.int64], scores: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve, ties counting half (Mann–Whitney); [B] for weights [B, n]."""
    return _area(*_above_each_score(labels, scores, weights))


def average_precision(labels: NDArray[np.int64], scores: Floats, weights: Floats) -> Floats:
    """Precision summed over recall steps, without interpolation; [B] for weights [B, n]."""
    return _mean_precision(*_above_each_score(labels, scores, weights))


def ranking(labels: NDArray[np.int64], scores: Floats, weights: Floats) -> dict[str, Floats]:
    """AUC, average precision, the equal error rate and the TPR at each of `LOW_FPR`; [B] each for weights [B, n].

    The equal error rate is where the ROC curve, its points joined by straight lines, has FPR = FNR. TPR at an FPR is that of
    the loosest threshold with no more false positives than that: a step, never read off between two points.
    """
    found, flagged = _above_each_score(labels, scores, weights)
    tpr, fpr = found / found[:, -1:], flagged / flagged[:, -1:]
    at = {tpr_key(rate): tpr[np.arange(len(tpr)), (fpr <= rate + 1e-12).sum(1) - 1] for rate in LOW_FPR}
    return {
        "auc": _area(found, flagged),
        "average_precision": _mean_precision(found, flagged),
        "eer": _equal_error_rate(tpr, fpr),
        **at,
    }


def tpr_key(rate: float) -> str:
    """The name of the TPR at an FPR among the metrics."""
    return f"tpr_at_fpr_{rate:g}"


def _above_each_score(labels: NDArray[np.int64], scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Fakes and reals scored at or above each distinct score, from the highest down, with a leading 0: [B, G + 1] each."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    w, fake = weights[:, order], labels[order] == 1
    nothing = np.zeros((len(weights), 1))
    found, flagged = (
        np.concatenate([nothing, np.cumsum(np.add.reduceat(w * of, starts, axis=1), axis=1)], axis=1) for of in (fake, ~fake)
    )
    return found, flagged


def _area(found: Floats, flagged: Floats) -> Floats:
    area = (np.diff(flagged, axis=1) * (found[:, 1:] + found[:, :-1])).sum(1) / 2
    return area / (found[:, -1] * flagged[:, -1])


def _mean_precision(found: Floats, flagged: Floats) -> Floats:
    precision = found[:, 1:] / np.maximum(found[:, 1:] + flagged[:, 1:], 1e-12)
    return (np.diff(found, axis=1) * precision).sum(1) / found[:, -1]


def _equal_error_rate(tpr: Floats, fpr: Floats) -> Floats:
    gap = fpr - (1 - tpr)  # from -1 up to 1, never falling
    after, rows = np.argmax(gap >= 0, axis=1), np.arange(len(gap))
    before = after - 1
    step = -gap[rows, before] / (gap[rows, after] - gap[rows, before])
    return fpr[rows, before] + step * (fpr[rows, after] - fpr[rows, before])


def confusion(labels: NDArray[np.int64], flagged: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """True negatives, false positives, false negatives, true positives: [B] each."""
    fake = labels == 1
    cells = (~fake & ~flagged, ~fake & flagged, fake & ~flagged, fake & flagged)
    tn, fp, fn, tp = (weights @ cell.astype(np.float64) for cell in cells)
    return tn, fp, fn, tp


def decisions(labels: NDArray[np.int64], flagged: NDArray[np.bool_], weights: Floats) -> dict[str, Floats]:
    """Accuracy, precision, recall and F1 of the class fake (0 where nothing is flagged), and the FPR."""
    tn, fp, fn, tp = confusion(labels, flagged, weights)
    return {
        "accuracy": (tn + tp) / (tn + fp + fn + tp),
        "precision": tp / np.maximum(tp + fp, 1e-12),
        "recall": tp / np.maximum(tp + fn, 1e-12),
        "f1": 2 * tp / np.maximum(2 * tp + fp + fn, 1e-12),
        "fpr": fp / np.maximum(fp + tn, 1e-12),
    }


def probability_measures(labels: NDArray[np.int64], p: Floats, weights: Floats) -> dict[str, Floats]:
    """Brier score, log-loss (p kept 1e-7 from 0 and 1, what float32 can tell from 1), ECE, smooth ECE and Brier skill.

    The Brier skill is 1 for probabilities that are always right, and 0 for those that give every photo the share of fakes,
    whose ECE is 0: resolution less reliability over uncertainty, in Murphy's (1973) decomposition, without his bins.
    """
    total, y, kept = weights.sum(1), labels.astype(np.float64), np.clip(p, 1e-7, 1 - 1e-7)
    brier, share = weights @ (p - y) ** 2 / total, weights @ y / total
    return {
        "brier": brier,
        "log_loss": weights @ -(y * np.log(kept) + (1 - y) * np.log(1 - kept)) / total,
        "ece": np.abs(weights @ _bin_membership(p, (y - p))).sum(1) / total,
        "smooth_ece": smooth_ece(labels, p, weights),
        "brier_skill": 1 - brier / (share * (1 - share)),
    }


def smooth_ece(labels: NDArray[np.int64], p: Floats, weights: Floats) -> Floats:
    """Smooth calibration error (Błasiok & Nakkiran, ICLR 2024, arXiv 2309.12236, definition 6); [B] for weights [B, n].

    The residuals y - p, as a density over p, are smoothed with a Gaussian reflected at 0 and 1; the error is the integral of
    the absolute value at the one bandwidth that equals it. No bins are chosen, and it changes continuously with p.
    Reflection makes the cosines the kernel's eigenfunctions, so smoothing is a product after a cosine transform. Residuals
    are shared between the two nearest of `GRID` points. The result is within `BANDWIDTH_TOLERANCE` of the exact one.
    """
    return _smoothed_error(weights @ _nearest_points(p, labels - p) / weights.sum(1, keepdims=True))


def errors_by_chance(p: Floats, *, seed: int, draws: int = 200) -> dict[str, dict[str, float]]:
    """ECE and smooth ECE of labels drawn as `p` says: what exactly right probabilities would show for so many photos.

    mean, and high: the 95th percentile (consistency resampling, Bröcker & Smith 2007). A measured error inside that range says
    nothing against the probabilities.
    """
    residuals = (np.random.default_rng(seed).random((draws, len(p))) < p) - p
    found = {
        "ece": np.abs(residuals @ _bin_membership(p, np.ones_like(p))).sum(1) / len(p),
        "smooth_ece": _smoothed_error(residuals @ _nearest_points(p, np.ones_like(p)) / len(p)),
    }
    return {name: {"mean": float(e.mean()), "high": float(np.percentile(e, 95))} for name, e in found.items()}


def _smoothed_error(density: Floats) -> Floats:
    """The smooth calibration error of residuals on the grid, [B, GRID].

    It is where the error at a bandwidth, which falls as the bandwidth grows, equals the bandwidth. The secant through the ends
    of a bracket finds it, with the Illinois rule (Dowell & Jarratt 1971): an end that stays twice counts half.
    """
    spectrum = dct(density.astype(np.float32), axis=1)
    decay = (-((np.arange(GRID) * np.pi) ** 2) / 2).astype(np.float32)
    found = np.zeros(len(density))
    rows = np.arange(len(density))
    low, high = np.zeros(len(density)), np.ones(len(density))
    above, below = np.abs(density).sum(1), np.abs(density.sum(1)) - 1  # error less bandwidth, at 0 and at (nearly) 1
    side = np.zeros(len(density))
    while len(rows):
        width = (low * below - high * above) / (below - above)
        smoothed = idct(spectrum[rows] * np.exp(decay * (width[:, None] ** 2).astype(np.float32)), axis=1, overwrite_x=True)
        excess = np.abs(smoothed).sum(1) - width
        found[rows] = width
        up = excess > 0
        below = np.where(up, np.where(side == 1, below / 2, below), excess)
        above = np.where(up, excess, np.where(side == -1, above / 2, above))
        low, high, side = np.where(up, width, low), np.where(up, high, width), np.where(up, 1, -1)
        left = (np.abs(excess) > BANDWIDTH_TOLERANCE) & (high - low > BANDWIDTH_TOLERANCE)
        rows, low, high, above, below, side = (v[left] for v in (rows, low, high, above, below, side))
    return found


def _nearest_points(p: Floats, values: Floats) -> csr_array:
    """[n, GRID]: each value, shared by distance between the two grid points around p, which are the middles of equal cells."""
    place = np.clip(p * GRID - 0.5, 0, GRID - 1)
    left = np.minimum(place.astype(np.int64), GRID - 2)
    share = place - left
    rows, columns = np.repeat(np.arange(len(p)), 2), np.stack([left, left + 1], axis=1).ravel()
    shared = np.stack([values * (1 - share), values * share], axis=1).ravel()
    return csr_array((shared, (rows, columns)), shape=(len(p), GRID))


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
    """Value and 95 % percentile interval of each metric that `compute` gives for weights [B, n].

    Calibration errors are distances from zero, which the resampling's own noise makes larger: their intervals are moved back
    by as much as the median resample lies above the value, so that the value is inside.
    """
    point = compute(np.ones((1, len(labels))))
    rng = np.random.default_rng(seed)
    rows = max(1, CHUNK // len(labels))
    drawn = [compute(resample_counts(labels, min(rows, resamples - i), rng)) for i in range(0, resamples, rows)]
    result = {}
    for name, value in point.items():
        low, median, high = np.percentile(np.concatenate([d[name] for d in drawn]), [2.5, 50, 97.5])
        moved = median - value[0] if name.startswith(DISTANCES) else 0
        result[name] = {"value": float(value[0]), "low": float(max(low - moved, 0)), "high": float(high - moved)}
    return result


def evaluate(
    labels: NDArray[np.int64],
    raw: NDArray[np.floating],
    calibrated: NDArray[np.floating],
    *,
    threshold: float = DEFAULT_THRESHOLD,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything that is reported of scores on labelled photos, as JSON values.

    labels: 0 real, 1 fake. Ranking (AUC, average precision, equal error rate, TPR at low FPR) is judged on the raw
    probability, since the plateaus of a calibration curve make ties; decisions on the calibrated one at `threshold`; Brier,
    log-loss, ECE and smooth ECE on both. notes: what so few photos can't tell.
    """
    ranked, p = raw.astype(np.float64), calibrated.astype(np.float64)
    flagged = p >= threshold

    def compute(weights: Floats) -> dict[str, Floats]:
        before, after = (probability_measures(labels, scores, weights) for scores in (ranked, p))
        return {
            **ranking(labels, ranked, weights),
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
        "spread": spread(labels, p),
        "by_chance": errors_by_chance(p, seed=seed),
        "notes": low_fpr_notes(int((labels == 0).sum())),
    }


def spread(labels: NDArray[np.int64], p: Floats) -> dict[str, float]:
    """How far probabilities tell photos apart: nine in ten photos of either class lie between low and high, all of them
    between lowest and highest."""
    ends = np.array([np.percentile(p[labels == label], [5, 95]) for label in np.unique(labels)])
    values = {"low": ends[:, 0].min(), "high": ends[:, 1].max(), "lowest": p.min(), "highest": p.max()}
    return {name: float(value) for name, value in values.items()}


def compare_probabilities(
    labels: NDArray[np.int64], ways: Mapping[str, NDArray[np.floating]], *, seed: int = 0
) -> dict[str, dict[str, dict[str, float]]]:
    """`MEASURES`, with intervals, of each of several probabilities for the same photos."""

    def compute(weights: Floats) -> dict[str, Floats]:
        return {
            f"{error} {way}": value
            for way, p in ways.items()
            for error, value in probability_measures(labels, p.astype(np.float64), weights).items()
        }

    found = with_intervals(compute, labels, seed=seed) if ways else {}
    return {way: {error: found[f"{error} {way}"] for error in MEASURES} for way in ways}


def low_fpr_notes(reals: int) -> list[str]:
    """Which of the TPRs at a low FPR so many real photos can't tell: one of them is already more than that rate."""
    return [
        f"TPR at {rate:.1%} FPR: {reals} real photos can't tell a rate of {rate:.1%}, since one of them is {1 / reals:.2%}; "
        f"the value is that with no real photo flagged, and {round(1 / rate)} or more would be needed"
        for rate in LOW_FPR
        if reals * rate < 1
    ]


def wilson(hits: float, n: int) -> dict[str, float]:
    """A share and its 95 % interval (Wilson 1927), which stays inside [0, 1] and has a width at 0 and 1 too."""
    z, share = 1.959964, hits / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    return {"value": share, "low": max(centre - half, 0.0), "high": min(centre + half, 1.0)}


def score_histogram(calibrated: NDArray[np.floating], bins: int = HISTOGRAM_BINS) -> dict[str, list[float]]:
    """{"edges": bins + 1 numbers from 0 to 1, "counts": bins numbers}: what production scores are held against for drift."""
    counts, edges = np.histogram(calibrated, bins=bins, range=(0, 1))
    return {"edges": [float(e) for e in edges], "counts": [int(c) for c in counts]}
