"""Calibration by a logistic function: Platt scaling, temperature scaling and beta calibration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.calibration import CalibrationCurve

Floats = NDArray[np.float64]
EDGE = 2.0**-24  # float32 can't tell a probability nearer than this to 1 from 1; nearer to 0 is held to be as near
TOLERANCE = 2.5e-5  # of the straight pieces that a smooth curve is served as


@dataclass(frozen=True)
class Logistic:
    """A family of logistic functions: probability = sigmoid(features @ parameters).

    parameters: their names. Those but the intercept are held at 0 or above, so that a higher raw score never means a lower
    probability. features: from ln p and ln(1 - p), float64[n] each. smoothed: whether targets are `platt_targets` or 0 and 1.
    """

    parameters: tuple[str, ...]
    features: Callable[[Floats, Floats], tuple[Floats, ...]]
    smoothed: bool = False


# Platt (1999) with his smoothed targets; Guo et al. (ICML 2017), where the slope is 1 / temperature; Kull et al. (AISTATS
# 2017), where the logit is a ln p - b ln(1 - p) + intercept.
PLATT = Logistic(("slope", "intercept"), lambda yes, no: (yes - no, np.ones_like(yes)), smoothed=True)
TEMPERATURE = Logistic(("slope",), lambda yes, no: (yes - no,))
BETA = Logistic(("a", "b", "intercept"), lambda yes, no: (yes, -no, np.ones_like(yes)))


def fit_logistic(family: Logistic, p: Floats, labels: NDArray[np.int64]) -> tuple[CalibrationCurve, dict[str, float]]:
    """Maximum likelihood, as a curve and its parameters. The loss is convex, so the start does not matter."""
    from scipy.optimize import minimize
    from scipy.special import expit

    high, low = platt_targets(labels) if family.smoothed else (1.0, 0.0)
    x, target = _features(family, p), np.where(labels == 1, high, low)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        logit = x @ parameters
        # log(1 + e^z) - t z is the cross-entropy, written so that no logarithm of 0 is taken
        return float(np.mean(np.logaddexp(0, logit) - target * logit)), x.T @ (expit(logit) - target) / len(p)

    start = np.array([float(name != "intercept") for name in family.parameters])
    bounds = [(None, None) if name == "intercept" else (0, None) for name in family.parameters]
    best = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-13, "gtol": 1e-9}).x
    curve = sampled(lambda raw: expit(_features(family, raw) @ best))
    return curve, dict(zip(family.parameters, map(float, best), strict=True))


def platt_targets(labels: NDArray[np.int64]) -> tuple[float, float]:
    """What Platt takes for 1 and for 0: the labels' mean after one more photo of either kind."""
    fakes = int((labels == 1).sum())
    reals = len(labels) - fakes
    return (fakes + 1) / (fakes + 2), 1 / (reals + 2)


def sampled(function: Callable[[Floats], Floats]) -> CalibrationCurve:
    """A smooth non-decreasing function of the raw probability as straight pieces, within `TOLERANCE` of it.

    Pieces are halved, in the logit, where such functions bend alike everywhere, until each is straight enough or as short as
    float32 can tell.
    """
    from scipy.special import expit

    ends = np.log(EDGE) - np.log1p(-EDGE)
    x = np.unique(np.concatenate([[0], expit(np.linspace(ends, -ends, 65)), [1]]).astype(np.float32))
    while True:
        middle = _between(x[:-1], x[1:])
        at = middle.astype(np.float64)
        bent = (middle > x[:-1]) & (middle < x[1:])
        bent &= np.abs(np.interp(at, x.astype(np.float64), function(x.astype(np.float64))) - function(at)) > TOLERANCE
        if not bent.any():
            return CalibrationCurve.from_knots(x, function(x.astype(np.float64)))
        x = np.union1d(x, middle[bent])


def _features(family: Logistic, p: Floats) -> Floats:
    kept = np.clip(p, EDGE, 1 - EDGE)
    return np.stack(family.features(np.log(kept), np.log1p(-kept)), axis=-1)


def _between(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    """The float32 whose logit is halfway between those of two others."""
    from scipy.special import expit

    a, b = (np.clip(v.astype(np.float64), EDGE / 4, 1 - EDGE / 4) for v in (low, high))
    return np.asarray(expit((np.log(a) - np.log1p(-a) + np.log(b) - np.log1p(-b)) / 2), np.float32)
