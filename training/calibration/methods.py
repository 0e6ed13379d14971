"""Calibration methods, each declared once in `METHODS`, and what fitting one gives.

The command line reads the names from here, so SciPy and scikit-learn are imported when a curve is fitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from detector.calibration import CalibrationCurve
from detector.files import atomic_write, write_json
from training.calibration.logistic import BETA, PLATT, TEMPERATURE, Floats, fit_logistic, platt_targets
from training.errors import TooFewToCalibrate

Fitted = tuple[CalibrationCurve, dict[str, float]]


@dataclass(frozen=True)
class Method:
    """One way to calibrate.

    fit: makes a curve that never falls, and the parameters to record, from raw probabilities, float64[n], and labels,
    int64[n], 1 for fake. fewest: photos that it needs. advised: photos from which it is likely the best.
    """

    name: str
    sentence: str
    fit: Callable[[Floats, NDArray[np.int64]], Fitted]
    fewest: int = 10
    advised: int = 0


def _isotonic(raw: Floats, labels: NDArray[np.int64]) -> Fitted:
    """Isotonic regression (Zadrozny & Elkan, KDD 2002) of the label on the raw probability, constant outside their range.

    The curve stays as far from 0 and 1 as so many photos can tell: 1/(n_real + 2) and 1/(n_fake + 2) (Platt 1999, section
    2.2). Seventy real photos in a row do not make it certain that the next one is real.
    """
    from sklearn.isotonic import IsotonicRegression

    fake, real = platt_targets(labels)
    model = IsotonicRegression(y_min=real, y_max=fake, out_of_bounds="clip").fit(raw, labels)
    return CalibrationCurve.from_knots(model.X_thresholds_, model.y_thresholds_), {}


METHODS = {
    method.name: method
    for method in (
        # On scores that need no calibration, isotonic fits to n photos are off by 0.11 (n = 12), 0.07 (50), 0.05 (200) and
        # 0.03 (1000) on average: measured on two normal classes with an AUC of 0.92. With fewer than some 200 to 1000 photos
        # Platt's two parameters do better for every learner in Niculescu-Mizil & Caruana (ICML 2005, section 5).
        Method("isotonic", "a curve of any shape that never falls", _isotonic, fewest=50, advised=200),
        Method("platt", "a logistic function of the logit, with two parameters", lambda p, t: fit_logistic(PLATT, p, t)),
        Method("temperature", "the logit divided by one number", lambda p, t: fit_logistic(TEMPERATURE, p, t)),
        Method(
            "beta", "a logistic function of ln p and ln(1 - p), with three parameters", lambda p, t: fit_logistic(BETA, p, t)
        ),
        Method("none", "raw probabilities as they are", lambda p, t: (CalibrationCurve.identity(), {}), fewest=0),
    )
}
AUTO = "auto"  # the first of `BY_SIZE` that has the photos it is advised for
BY_SIZE = ("isotonic", "platt", "none")
CHOICES = (AUTO, *METHODS)
if TYPE_CHECKING:
    CalibrationMethod = str
else:
    CalibrationMethod = Literal[CHOICES]  # what the command line takes


def described() -> str:
    """The choices with a sentence each, for help texts."""
    auto = f"auto: isotonic from {METHODS['isotonic'].advised} photos on and platt below"
    return "; ".join([auto, *(f"{method.name}: {method.sentence}" for method in METHODS.values())])


@dataclass(frozen=True)
class Calibration:
    """A fitted curve. parameters: of a method that has any. n: photos that it was fitted on."""

    method: str = "none"
    curve: CalibrationCurve = field(default_factory=CalibrationCurve.identity)
    parameters: dict[str, float] = field(default_factory=dict)
    n: int = 0

    def save(self, directory: Path) -> None:
        """Write `calibration.json`, which is served, and `calibrator.joblib` for notebooks, which nothing here reads.

        The second holds the same curve as scikit-learn's `IsotonicRegression`, whatever the method was, and loads where this
        project is not installed. It is not written for the method `none`.
        """
        record: dict[str, Any] = {"method": self.method, **self.curve.to_dict(), "n": self.n}
        if self.parameters:
            record["parameters"] = self.parameters
        write_json(directory / "calibration.json", record, indent=1)
        calibrator = directory / "calibrator.joblib"
        if self.method == "none":
            calibrator.unlink(missing_ok=True)
            return
        import joblib
        from sklearn.isotonic import IsotonicRegression

        knots = (self.curve.x.astype(np.float64), self.curve.y.astype(np.float64))  # never falling, so a fit changes nothing
        with atomic_write(calibrator) as partial:
            joblib.dump(IsotonicRegression(out_of_bounds="clip").fit(*knots), partial)


def fit_calibration(method: str, raw: NDArray[np.float32], labels: NDArray[np.int64]) -> Calibration:
    """Fit one of `CHOICES` to raw probabilities, float32[n], and labels, int64[n].

    The curve never falls, whatever the photos say. Raises `TooFewToCalibrate`.
    """
    chosen = METHODS[chosen_method(method, len(labels))]
    require_enough(chosen.name, len(labels))
    if chosen.name == "none":
        return Calibration()
    return Calibration(chosen.name, *chosen.fit(raw.astype(np.float64), labels), len(labels))


def fit_all(raw: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Calibration]:
    """Every method, fitted on the same photos, to be compared on others; without those that need more photos."""
    return {name: fit_calibration(name, raw, labels) for name, method in METHODS.items() if len(labels) >= method.fewest}


def chosen_method(method: str, n: int) -> str:
    """The method that one of `CHOICES` stands for where there are `n` photos."""
    if method != AUTO:
        return method
    return next(name for name in BY_SIZE if n >= max(METHODS[name].fewest, METHODS[name].advised))


def require_enough(method: str, n: int) -> None:
    """Raise `TooFewToCalibrate`, with what would do instead, when `n` photos are too few for `method`."""
    if method == AUTO or n >= METHODS[method].fewest:
        return
    able = [name for name, other in METHODS.items() if n >= other.fewest]
    raise TooFewToCalibrate(
        f"{method} calibration needs {METHODS[method].fewest} photos and there are {n}; give more, with a larger "
        f"--calibrate-fraction where they come from the training photos, or --calibration {' or '.join([AUTO, *able])}"
    )


def calibration_note(method: str, n: int) -> str | None:
    """What to tell the user: which method `auto` chose, or that another one is likely to do better with so few photos."""
    chosen = chosen_method(method, n)
    if method == AUTO:
        few = "" if chosen == BY_SIZE[0] else f"; {BY_SIZE[0]} is for {METHODS[BY_SIZE[0]].advised} or more"
        return f"calibration: {chosen}, with {n} photos{few}"
    if n >= METHODS[method].advised:
        return None
    return (
        f"warning: {method} calibration on {n} photos; below {METHODS[method].advised} a curve of two parameters is mostly "
        "nearer to the truth: --calibration platt, or more photos with --calibrate-fraction. The report compares all methods"
    )
