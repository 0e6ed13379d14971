"""The band of Uncertain: which calibrated probabilities get no answer, chosen for an error rate of each class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.verdict import DEFAULT_THRESHOLD, Band
from training.errors import TooFewToAbstain

Rates = tuple[float, float]
RISK = 0.05  # that the photos at hand make a rate look smaller than it is, for each of the two


def choose_band(calibrated: NDArray[np.floating], labels: NDArray[np.int64], rates: Rates) -> dict[str, Any]:
    """The narrowest band that keeps both error rates on photos like those given, each with 95 % confidence.

    calibrated, labels: of n held-out photos, [n] each. rates: the share of real photos that may be called Fake, and the share
    of fake ones that may be called Real. Its ends are order statistics of the two classes, at the rank whose binomial tail is
    `RISK` (the umbrella algorithm for Neyman-Pearson classification, Tong, Feng & Li, Science Advances 2018). Nothing is
    assumed of the scores, and the curve may be fitted on the same photos, since one that never falls changes no ranks.
    An end lies midway to the next score, never on a plateau of the curve, whose photos would all be on one side of it.

    Returns JSON values: band ([lower, upper]; equal where one threshold keeps both rates, None where no band can), threshold
    (in the band; the default one where it is), target_fpr, target_fnr, confidence, n_real, n_fake, reals_called_fake,
    fakes_called_real, uncertain (of these photos), and notes. Raises `TooFewToAbstain`.
    """
    require_enough_to_abstain(labels, rates)
    p, (fpr, fnr) = calibrated.astype(np.float64), rates
    reals, fakes = np.sort(p[labels == 0])[::-1], np.sort(p[labels == 1])
    highest, lowest = reals[_allowed(len(reals), fpr)], fakes[_allowed(len(fakes), fnr)]
    asked = {"target_fpr": fpr, "target_fnr": fnr, "confidence": 1 - RISK, "n_real": len(reals), "n_fake": len(fakes)}
    if highest >= 1 or lowest <= 0:
        said, end = ("real", 1) if highest >= 1 else ("fake", 0)
        note = f"no band keeps these rates: too many {said} photos have a probability of exactly {end}"
        return {**asked, "band": None, "threshold": DEFAULT_THRESHOLD, "notes": [note]}
    upper = (highest + min(p[p > highest], default=1.0)) / 2
    lower = (lowest + max(p[p < lowest], default=0.0)) / 2
    threshold = min(max(DEFAULT_THRESHOLD, min(lower, upper)), max(lower, upper))
    band = Band(lower, upper) if lower < upper else Band(threshold, threshold)
    inside = int(((p >= band.lower) & (p < band.upper)).sum())
    notes = []
    if inside == 0:
        notes.append(f"one threshold, {threshold:.4g}, keeps both rates, so no photo is Uncertain")
    if inside == len(p):
        notes.append("every one of these photos is Uncertain: the detector can't keep such rates")
    return {
        **asked,
        "band": band.to_list(),
        "threshold": float(threshold),
        "reals_called_fake": int((reals >= band.upper).sum()),
        "fakes_called_real": int((fakes < band.lower).sum()),
        "uncertain": inside,
        "notes": notes,
    }


def require_enough_to_abstain(labels: NDArray[np.int64], rates: Rates) -> None:
    """Raise `TooFewToAbstain`, with what would do instead, when there are too few photos for the rates: int64[n], 1 for fake.

    If none of n photos is called wrong, the rate may still be as high as 1 - RISK^(1/n) with the confidence asked for.
    """
    counts = [int((labels == label).sum()) for label in (0, 1)]
    problems = [
        f"{math.ceil(math.log(RISK) / math.log1p(-rate))} {name} photos for a rate of {rate:g}, and there are {n}"
        for name, n, rate in zip(("real", "fake"), counts, rates, strict=True)
        if (1 - rate) ** n > RISK
    ]
    if problems:
        possible = [max(rate, _smallest(n)) for n, rate in zip(counts, rates, strict=True)]
        instead = f"--abstain {possible[0]:g},{possible[1]:g} or more, or " if max(possible) < 0.5 else ""
        raise TooFewToAbstain(
            f"--abstain {rates[0]:g},{rates[1]:g} takes held-out photos that can tell such rates: {'; '.join(problems)}. "
            f"Give {instead}more photos, with a larger --calibrate-fraction where they come from the training photos"
        )


def _smallest(n: int) -> float:
    """The smallest rate that n photos can tell, rounded up to three decimals."""
    return math.ceil(1000 * (1 - RISK ** (1 / n))) / 1000 if n else 1.0


def _allowed(n: int, rate: float) -> int:
    """How many of n photos may lie on the wrong side of an end: the most of which a true rate above `rate` would show so few
    with a probability of at most `RISK`."""
    from scipy.stats import binom

    errors = int(binom.ppf(RISK, n, rate))
    return errors if binom.cdf(errors, n, rate) <= RISK else errors - 1
