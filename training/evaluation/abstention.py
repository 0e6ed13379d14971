"""Abstention: how many photos a model with a band answers, and how often it is wrong about those."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.verdict import Band
from training.evaluation.metrics import wilson

Bools = NDArray[np.bool_]


def called(calibrated: NDArray[np.floating], threshold: float, band: Band | None) -> tuple[Bools, Bools]:
    """Which photos are called Fake and which Real, bool[n] each; the others are Uncertain."""
    if band is None:
        fake = calibrated >= threshold
        return fake, ~fake
    return calibrated >= band.upper, calibrated < band.lower


def abstention(labels: NDArray[np.int64], calibrated: NDArray[np.floating], band: Band) -> dict[str, Any]:
    """What the band does on labelled photos, as JSON values; shares with 95 % intervals (Wilson).

    coverage: of the photos that are answered. fpr: of the real photos that are called Fake, and fnr: of the fake ones that are
    called Real; Uncertain photos count among neither. error: of wrong answers among the answers, None without any.
    """
    fake, real = called(calibrated, band.upper, band)
    answered, wrong = int((fake | real).sum()), int((fake & (labels == 0)).sum() + (real & (labels == 1)).sum())
    reals, fakes = int((labels == 0).sum()), int((labels == 1).sum())
    return {
        "n": len(labels),
        "answered": answered,
        "coverage": wilson(answered, len(labels)),
        "fpr": wilson(int((fake & (labels == 0)).sum()), reals),
        "fnr": wilson(int((real & (labels == 1)).sum()), fakes),
        "error": wilson(wrong, answered) if answered else None,
    }


def risk_coverage(
    labels: NDArray[np.int64], calibrated: NDArray[np.floating], threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coverage, and the error among the answers, when only the surest photos are answered: float64[k] each, coverage rising.

    The risk-coverage curve of selective classification (El-Yaniv & Wiener, JMLR 2010). A photo is the surer the farther its
    probability is from the threshold, as a share of the way to 0 or to 1. Photos that are equally sure come together.
    """
    p = calibrated.astype(np.float64)
    fake = p >= threshold
    sure = np.where(fake, (p - threshold) / (1 - threshold), (threshold - p) / threshold)
    order = np.argsort(-sure, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(sure[order]) != 0, True)) + 1
    wrong = np.cumsum((fake != (labels == 1))[order])
    return ends / len(p), wrong[ends - 1] / ends
