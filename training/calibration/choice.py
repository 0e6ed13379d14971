"""The choice of a calibration method, by how each does on photos that it was not fitted on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.calibration.logistic import Floats
from training.calibration.methods import ISOTONIC, METHODS, NONE

FOLDS = 10


@dataclass(frozen=True)
class Choice:
    """A method and why it was taken. held_out: of each candidate, the probabilities of the photos, float64[n], each from a
    curve that was fitted on nine tenths of the others."""

    method: str
    why: str
    held_out: dict[str, Floats] = field(default_factory=dict)


def choose(raw: NDArray[np.float32], labels: NDArray[np.int64]) -> Choice:
    """The method for these raw probabilities, float32[n], and labels, int64[n]. The same photos give the same choice.

    It is the one with the smallest cross-validated log-loss. Isotonic is a candidate where there are the photos that it is
    advised for, and methods that are not bounded where the scores of real and of fake photos overlap. None is taken where no
    curve has a smaller cross-validated log-loss than raw probabilities and no larger Brier score.
    """
    n = len(labels)
    fewest = min(method.fewest for method in METHODS.values() if method.fewest)
    if n < fewest or min(np.bincount(labels, minlength=2)) < 2:
        return Choice(NONE, f"{n} photos are too few to fit a curve on and to see whether it helps")
    apart = _apart(raw, labels)
    able = [m.name for m in METHODS.values() if n >= max(m.fewest, m.advised) and (m.bounded or not apart)]
    held_out = cross_validated(able, raw, labels)
    loss = {name: float(_log_loss(labels, p)) for name, p in held_out.items()}
    brier = {name: float(np.mean((p - labels) ** 2)) for name, p in held_out.items()}
    helping = [name for name in able if loss[name] < loss[NONE] and brier[name] <= brier[NONE]]
    by = f"cross-validated among the {n} photos"
    if ISOTONIC not in able:
        by += f", which are too few to try {ISOTONIC}"
    if not helping:
        return Choice(NONE, f"no curve has a smaller log-loss and Brier score than raw probabilities, {by}", held_out)
    best = min(helping, key=lambda name: loss[name])
    return Choice(best, f"it has the smallest log-loss, {by}", held_out)


def cross_validated(methods: list[str], raw: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Floats]:
    """Of each method, probabilities float64[n] from curves that were fitted without the photo; at least two of each class."""
    from sklearn.model_selection import StratifiedKFold

    splits = min(FOLDS, *np.bincount(labels, minlength=2))
    p, found = raw.astype(np.float64), {name: np.empty(len(labels)) for name in methods}
    for fit, rest in StratifiedKFold(splits, shuffle=True, random_state=0).split(p, labels):
        for name in methods:
            curve, _ = METHODS[name].fit(p[fit], labels[fit])
            found[name][rest] = curve(raw[rest])
    return found


def _apart(raw: NDArray[np.float32], labels: NDArray[np.int64]) -> bool:
    """Whether every fake photo scores higher than every real one."""
    return bool(raw[labels == 1].min() > raw[labels == 0].max())


def _log_loss(labels: NDArray[np.int64], p: Floats) -> float:
    kept = np.clip(p, 1e-7, 1 - 1e-7)  # what float32 can tell from 1
    return -float(np.mean(np.where(labels == 1, np.log(kept), np.log1p(-kept))))
