"""Shortcuts: how far what has nothing to do with forgery tells the classes apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from threadpoolctl import threadpool_limits

from training.data.facts import PhotoFacts
from training.data.photos import FAKE, REAL

FEATURES = {
    "format": ("format",),
    "file size": ("bytes",),
    "dimensions": ("width", "height"),
    "quantisation": ("quantisation",),
    "subsampling": ("subsampling",),
    "EXIF": ("exif",),
    "mean colour": ("red", "green", "blue"),
    "sharpness": ("sharpness",),
}
ALL = "all together"
NOTABLE = 0.6  # AUC above which a shortcut is warned of
FOLDS = 5
CATEGORIES = 250
ENOUGH = 10_000  # photos of each class, drawn by a seed; more do not move an AUC by a hundredth
FEWEST = 10  # photos of each class below which nothing is measured


def measure(facts: Sequence[PhotoFacts], labels: NDArray[np.int64]) -> dict[str, float]:
    """AUC of each feature of `FEATURES` alone, and of all together, between the classes; empty for fewer than ten of one.

    Gradient boosting is fitted on four fifths of the photos and judged on the fifth; the mean over five such folds is given.
    So it finds any relation, rising or not, in numbers and in words, which it orders by the labels of the four fifths alone;
    0.5 is chance. Below 0.5 is chance too, and given as 0.5. Of a class with more than `ENOUGH`
    photos so many are measured.
    """
    rng = np.random.default_rng(0)
    own = [np.flatnonzero(labels == label) for label in (REAL, FAKE)]
    rows = np.sort(np.concatenate([r if len(r) <= ENOUGH else rng.choice(r, ENOUGH, replace=False) for r in own]))
    facts, labels = [facts[row] for row in rows], labels[rows]
    if min((labels == label).sum() for label in (REAL, FAKE)) < FEWEST:
        return {}
    every = tuple(column for columns in FEATURES.values() for column in columns)
    alone = {name: _auc(facts, columns, labels, rounds=10) for name, columns in FEATURES.items()}
    return alone | {ALL: _auc(facts, every, labels, rounds=50)}


def notable(aucs: dict[str, float], labels: NDArray[np.int64]) -> dict[str, float]:
    """Those above 0.6 and above what chance gives so few photos: three standard deviations of the null (Mann and Whitney)."""
    real, fake = ((labels == label).sum() for label in (REAL, FAKE))
    chance = 0.5 + 3 * float(np.sqrt((real + fake + 1) / (12 * real * fake))) if real and fake else 1.0
    return {name: auc for name, auc in aucs.items() if auc > max(NOTABLE, chance)}


def _auc(facts: Sequence[PhotoFacts], columns: tuple[str, ...], labels: NDArray[np.int64], rounds: int) -> float:
    values = [np.array([getattr(fact, column) for fact in facts]) for column in columns]
    values = [v for v in values if (v != v[0]).any()]  # what is the same for all photos tells nothing apart
    if not values:
        return 0.5
    words = [v.dtype.kind == "U" for v in values]
    x = np.stack([_codes(v) if word else v.astype(np.float64) for v, word in zip(values, words, strict=True)], axis=1)
    model = HistGradientBoostingClassifier(
        max_iter=rounds,
        max_leaf_nodes=8,
        min_samples_leaf=max(2, len(labels) // 100),
        categorical_features=words,
        early_stopping=False,
        random_state=0,
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    # One thread: on so little work several wait for each other, 27 s against 2 where the cores were busy.
    with threadpool_limits(1):
        return max(0.5, float(cross_val_score(model, x, labels, cv=folds, scoring="roc_auc").mean()))


def _codes(words: NDArray[np.str_]) -> NDArray[np.float64]:
    """A number for each of the most frequent words, and NaN for the others: the boosting takes 255 at most."""
    _, which, n = np.unique(words, return_inverse=True, return_counts=True)
    rank = np.argsort(np.argsort(-n, kind="stable"))[which].astype(np.float64)
    return np.where(rank < CATEGORIES, rank, np.nan)
