"""Families and groups: how a detector does on each kind of photo, where folders or names tell the kinds apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.photos import CLASSES, FAKE
from training.evaluation.metrics import roc_auc, wilson, with_intervals

REST = "(other)"


def family_names(names: Sequence[str], pattern: str | None = None) -> list[str] | None:
    """The family of each photo: the sub-folder it lies in inside its class folder, or what `pattern` finds in its name.

    A pattern's first group counts, or its whole match; a photo without either is in the family "(other)". None when all are
    there, so that there is nothing to tell apart.
    """
    find = re.compile(pattern).search if pattern is not None else None
    found = [_sub_folder(name) if find is None else _matched(find(name)) for name in names]
    return None if set(found) <= {REST} else found


def family_rows(
    families: Sequence[str],
    labels: NDArray[np.int64],
    raw: NDArray[np.floating],
    flagged: NDArray[np.bool_],
    *,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """One row for each family of each class, as JSON values: family, class, n, flagged, and the AUC of a fake one.

    flagged: the share of the family's photos called Fake, with its Wilson interval: the TPR of a fake family, the FPR of a
    real one. auc: of a fake family's raw scores against those of all real photos, with its bootstrap interval.
    """
    rows = []
    kinds = np.array(families)
    for name, label in sorted(CLASSES.items(), key=lambda item: -item[1]):
        for family in sorted(set(kinds[labels == label])):
            own = (labels == label) & (kinds == family)
            row: dict[str, Any] = {"family": str(family), "class": name, "n": int(own.sum()), "flagged": _share(flagged[own])}
            if label == FAKE and (labels != FAKE).any():
                row["auc"] = _auc(labels, raw, own | (labels != FAKE), seed)
            rows.append(row)
    return rows


def group_rows(groups: Sequence[str], labels: NDArray[np.int64], flagged: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """One row for each group, the largest first, as JSON values: group, n, and the class's share called Fake where it has any.

    tpr and fpr: with Wilson intervals; None where the group has no photo of that class.
    """
    kinds, rows = np.array(groups), []
    names, places, sizes = np.unique(kinds, return_inverse=True, return_counts=True)
    for k in np.lexsort((names, -sizes)):
        own = places == k
        tpr, fpr = (_share(flagged[own & (labels == label)]) for label in (FAKE, 1 - FAKE))
        rows.append({"group": str(names[k]), "n": int(sizes[k]), "tpr": tpr, "fpr": fpr})
    return rows


def _share(flagged: NDArray[np.bool_]) -> dict[str, float] | None:
    return wilson(float(flagged.sum()), len(flagged)) if len(flagged) else None


def _auc(labels: NDArray[np.int64], raw: NDArray[np.floating], rows: NDArray[np.bool_], seed: int) -> dict[str, float]:
    truth, scores = labels[rows], raw[rows].astype(np.float64)
    return with_intervals(lambda weights: {"auc": roc_auc(truth, scores, weights)}, truth, seed=seed)["auc"]


def _sub_folder(name: str) -> str:
    folders = name.split("/")[:-1]
    inside = next((i + 1 for i, folder in enumerate(folders) if folder.lower() in CLASSES), len(folders))
    return folders[inside] if inside < len(folders) else REST


def _matched(match: re.Match[str] | None) -> str:
    return REST if match is None else (match.group(1) if match.re.groups and match.group(1) else match.group(0)) or REST
