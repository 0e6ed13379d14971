"""The threshold: from which calibrated probability on a photo is called Fake, chosen for a rate of false alarms."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

_LARGEST = float(np.nextafter(1, 0))


def threshold_for_fpr(calibrated: NDArray[np.floating], labels: NDArray[np.int64], target: float) -> dict[str, Any]:
    """The lowest threshold that flags at most `target` of the real photos given, and what so many photos can tell of it.

    It lies above a tied score, midway to the next one among all photos: never on a plateau of the curve, whose photos would
    all be flagged with it. Returns JSON values: threshold, target_fpr, n_real, flagged_real, fpr, fpr_upper_95 (one-sided
    Clopper & Pearson 1934: the true rate is below this with 95 % confidence), fakes_found (share of the fake photos given) and
    notes.
    """
    p = calibrated.astype(np.float64)
    reals = np.sort(p[labels == 0])[::-1]
    n, allowed = len(reals), int(np.floor(target * len(reals) + 1e-9))
    tied = reals[allowed]
    above = p[p > tied]
    threshold = min((tied + (above.min() if len(above) else 1.0)) / 2, _LARGEST)
    flagged = int((reals >= threshold).sum())
    found = float((p[labels == 1] >= threshold).mean())
    upper = float(beta.ppf(0.95, flagged + 1, n - flagged)) if flagged < n else 1.0
    notes = [
        f"{flagged} of {n} real photos are flagged at this threshold; the rate for photos like them is below {upper:.2%} "
        "with 95 % confidence"
    ]
    if target * n < 1:
        notes.append(f"{n} real photos can't tell a rate of {target:.2%}, since one of them is {1 / n:.2%}; none is flagged")
    if flagged > allowed:
        notes.append("the rate asked for can't be kept: real photos have a probability of exactly 1")
    if found == 0:
        notes.append("no fake photo is found at this threshold: as many real ones share the highest probability")
    return {
        "threshold": float(threshold),
        "target_fpr": target,
        "n_real": n,
        "flagged_real": flagged,
        "fpr": flagged / n,
        "fpr_upper_95": upper,
        "fakes_found": found,
        "notes": notes,
    }
