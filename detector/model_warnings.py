"""What a person must know of a model before they trust it: warnings that its own reported numbers give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detector.verdict import Band, predicted

CHANCE = 0.5  # AUC of a coin
# Where nine in ten photos of either class get probabilities within a tenth of one another, the probabilities are called flat.
# Exactly calibrated probabilities of two normal classes spread so little at an AUC of 0.53 and below.
FLAT = 0.1

AT_CHANCE, FLAT_PROBABILITIES, ONE_VERDICT = "auc_at_chance", "flat_probabilities", "one_verdict"
MISLEADING = "misleading_probabilities"
CODES = {
    AT_CHANCE: "The 95 % interval of AUC holds 0.5, or lies below it.",
    FLAT_PROBABILITIES: "Nine in ten photos of either class get calibrated probabilities within 0.1 of one another.",
    MISLEADING: "The Brier skill's 95 % interval lies below 0: the share of fakes, given to every photo, is nearer.",
    ONE_VERDICT: "Every validation photo gets the same verdict at this threshold.",
}


def model_warnings(validation: Mapping[str, Any], threshold: float, band: Band | None = None) -> list[dict[str, str]]:
    """Warnings, a code of `CODES` and a sentence each, that the metrics of a model on validation photos give.

    validation: as `training.evaluation.metrics.evaluate` returns it; what is not in it gives no warning. threshold:
    calibrated probability from which a photo is called Fake, maybe another than that of the metrics. band: of Uncertain.
    """
    found = []
    if auc := validation.get("auc"):
        numbers = f"AUC {auc['value']:.3f}, 95 % between {auc['low']:.3f} and {auc['high']:.3f}"
        if auc["high"] < CHANCE:
            found.append((AT_CHANCE, f"it ranks these photos worse than a coin would ({numbers}); are the labels swapped?"))
        elif auc["low"] <= CHANCE:
            found.append((AT_CHANCE, f"on these photos it is no better than a coin ({numbers})"))
    if spread := validation.get("spread"):
        low, high = (100 * spread[end] for end in ("low", "high"))
        if spread["high"] - spread["low"] < FLAT:
            said = f"{low:.1f} %" if f"{low:.1f}" == f"{high:.1f}" else f"between {low:.1f} and {high:.1f} %"
            found.append(
                (FLAT_PROBABILITIES, f"it says nearly the same of every photo: nine in ten of either class get {said}")
            )
        first, last = (predicted(spread[end], threshold, band) for end in ("lowest", "highest"))
        if first == last:
            at = f"with its band, {band.lower:.4g} to {band.upper:.4g}" if band else f"at its threshold, {threshold:.4g}"
            found.append((ONE_VERDICT, f"it calls every validation photo {first} {at}"))
    if (skill := validation.get("brier_skill")) and skill["high"] < 0:
        said = f"the share of fakes, given to every photo, is nearer than its probabilities (Brier skill {skill['value']:.2f})"
        found.append((MISLEADING, said))
    return [{"code": code, "message": message} for code, message in found]
