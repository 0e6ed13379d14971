"""Calibration: the curve from raw to calibrated probability, fitted on photos used for nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from detector.calibration import CalibrationCurve
from detector.errors import UsageError
from training.options import CALIBRATIONS

Floats = NDArray[np.float64]
EDGE = 2.0**-24  # float32 can't tell a probability nearer than this to 1 from 1; nearer to 0 is held to be as near
TOLERANCE = 2.5e-5  # of the straight pieces that a smooth curve is served as
# On scores that need no calibration an isotonic fit to so many photos is off by 0.11 (12), 0.07 (50), 0.05 (200) and 0.03
# (1000) on average: measured on two normal classes with an AUC of 0.92. Below some 200 to 1000 cases Platt's two
# parameters beat it with every learner in Niculescu-Mizil & Caruana (ICML 2005, section 5).
ISOTONIC_FEWEST = 50
ISOTONIC_ADVISED = 200
FEWEST = 10  # for the methods of one to three parameters


class TooFewToCalibrate(UsageError):
    """Fewer calibration photos than the method asked for needs."""

    code = "too_few_to_calibrate"


@dataclass(frozen=True)
class LogisticCalibrator:
    """A logistic function of the raw probability's logit, or of its two logarithms.

    parameters: "slope" and "intercept" (Platt), "slope" alone, which is 1 / temperature, or "a", "b" and "intercept" (beta:
    logit = a ln p - b ln(1 - p) + intercept).
    """

    method: str
    parameters: dict[str, float]

    def predict(self, raw: ArrayLike) -> Floats:
        """Calibrated probabilities, float64 of the input's shape, like scikit-learn's `IsotonicRegression.predict`."""
        p = np.asarray(raw, np.float64)
        return np.asarray(expit(_features(self.method, p) @ np.array(list(self.parameters.values()))))


@dataclass(frozen=True)
class Calibration:
    """A fitted curve. model: what it was made from, for notebooks; None when nothing was fitted. n: photos that took."""

    method: str = "none"
    curve: CalibrationCurve = field(default_factory=CalibrationCurve.identity)
    model: IsotonicRegression | LogisticCalibrator | None = None
    n: int = 0

    def save(self, directory: Path) -> None:
        """Write `calibration.json`, which is served, and `calibrator.joblib` for notebooks, which nothing here reads."""
        record: dict[str, Any] = {"method": self.method, **self.curve.to_dict(), "n": self.n}
        if isinstance(self.model, LogisticCalibrator):
            record["parameters"] = self.model.parameters
        (directory / "calibration.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        if self.model is not None:
            joblib.dump(self.model, directory / "calibrator.joblib")
        else:
            (directory / "calibrator.joblib").unlink(missing_ok=True)


def fit_calibration(method: str, raw: NDArray[np.float32], labels: NDArray[np.int64]) -> Calibration:
    """Fit one of `CALIBRATIONS` to raw probabilities, float32[n], and labels, int64[n].

    The curve is monotone whatever the photos say. Raises `TooFewToCalibrate`.
    """
    if method == "none":
        return Calibration()
    require_enough(method, len(labels))
    if method == "isotonic":
        isotonic = _fit_isotonic(raw, labels)
        return Calibration(
            method, CalibrationCurve.from_knots(isotonic.X_thresholds_, isotonic.y_thresholds_), isotonic, len(raw)
        )
    logistic = _fit_logistic(method, raw.astype(np.float64), labels)
    return Calibration(method, sampled(logistic.predict), logistic, len(raw))


def fit_all(raw: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Calibration]:
    """Every method, fitted on the same photos, to be compared on others; without those that need more photos."""
    able = [m for m in CALIBRATIONS if m == "none" or len(labels) >= _fewest(m)]
    return {method: fit_calibration(method, raw, labels) for method in able}


def require_enough(method: str, n: int) -> None:
    """Raise `TooFewToCalibrate`, with what would do instead, when `n` photos are too few for `method`."""
    if method != "none" and n < _fewest(method):
        instead = (
            "--calibration platt, beta or temperature needs fewer" if method == "isotonic" else "--calibration none needs none"
        )
        raise TooFewToCalibrate(
            f"{method} calibration needs {_fewest(method)} photos and there are {n}; give more, with a larger "
            f"--calibrate-fraction where they come from the training photos; {instead}"
        )


def few_warning(method: str, n: int) -> str | None:
    """A warning where `method` works and another is likely to do better with so few photos."""
    if method != "isotonic" or n >= ISOTONIC_ADVISED:
        return None
    return (
        f"warning: isotonic calibration on {n} photos; below {ISOTONIC_ADVISED} a curve of two parameters is mostly nearer to "
        "the truth: --calibration platt, or more photos with --calibrate-fraction. The report compares all methods"
    )


def _fewest(method: str) -> int:
    return ISOTONIC_FEWEST if method == "isotonic" else FEWEST


def _fit_isotonic(raw: NDArray[np.float32], labels: NDArray[np.int64]) -> IsotonicRegression:
    """Isotonic regression (Zadrozny & Elkan, KDD 2002) of the label on the raw probability, constant outside their range.

    It stays as far from 0 and 1 as so many photos can tell, 1/(n_real + 2) and 1/(n_fake + 2) (Platt 1999, section 2.2):
    seventy photos in a row that are real don't make the next one real for certain.
    """
    fake, real = _targets(labels)
    model = IsotonicRegression(y_min=real, y_max=fake, out_of_bounds="clip")
    return model.fit(raw.astype(np.float64), labels)


def _fit_logistic(method: str, p: Floats, labels: NDArray[np.int64]) -> LogisticCalibrator:
    """Maximum likelihood, with slopes held at 0 or above so that a higher raw score never means a lower probability.

    Platt scaling (Platt 1999) with his smoothed targets, temperature scaling (Guo et al., ICML 2017) and beta calibration
    (Kull et al., AISTATS 2017) with 0 and 1 as targets, as in these papers. The loss is convex, so the start is of no matter.
    """
    names = {"platt": ("slope", "intercept"), "temperature": ("slope",), "beta": ("a", "b", "intercept")}[method]
    high, low = _targets(labels) if method == "platt" else (1.0, 0.0)
    x, target = _features(method, p), np.where(labels == 1, high, low)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        logit = x @ parameters
        # log(1 + e^z) - t z is the cross-entropy, written so that no logarithm of 0 is taken
        return float(np.mean(np.logaddexp(0, logit) - target * logit)), x.T @ (expit(logit) - target) / len(p)

    start = np.array([float(name != "intercept") for name in names])
    bounds = [(None, None) if name == "intercept" else (0, None) for name in names]
    best = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-13, "gtol": 1e-9})
    return LogisticCalibrator(method, dict(zip(names, map(float, best.x), strict=True)))


def _targets(labels: NDArray[np.int64]) -> tuple[float, float]:
    """What Platt takes for 1 and for 0: the labels' mean after one more photo of either kind."""
    fakes = int((labels == 1).sum())
    reals = len(labels) - fakes
    return (fakes + 1) / (fakes + 2), 1 / (reals + 2)


def _features(method: str, p: Floats) -> Floats:
    """What the logistic function is linear in, [..., k]."""
    kept = np.clip(p, EDGE, 1 - EDGE)
    yes, no = np.log(kept), np.log1p(-kept)
    columns = {"platt": [yes - no, np.ones_like(yes)], "temperature": [yes - no], "beta": [yes, -no, np.ones_like(yes)]}
    return np.stack(columns[method], axis=-1)


def sampled(function: Callable[[Floats], Floats]) -> CalibrationCurve:
    """A smooth non-decreasing function of the raw probability as straight pieces, within `TOLERANCE` of it.

    Pieces are halved, in the logit, where such functions bend alike everywhere, until each is straight enough or as short as
    float32 can tell.
    """
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


def _between(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float32]:
    """The float32 whose logit is halfway between those of two others."""
    a, b = (np.clip(v.astype(np.float64), EDGE / 4, 1 - EDGE / 4) for v in (low, high))
    return expit((np.log(a) - np.log1p(-a) + np.log(b) - np.log1p(-b)) / 2).astype(np.float32)
