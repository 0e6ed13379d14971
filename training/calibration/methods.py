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
ISOTONIC, NONE = "isotonic", "none"


@dataclass(frozen=True)
class Method:
    """One way to calibrate.

    fit: makes a curve that never falls, and the parameters to record, from raw probabilities, float64[n], and labels,
    int64[n], 1 for fake. fewest: photos that it needs. advised: photos from which it is likely the best. bounded: whether the
    curve keeps away from 0 and 1 where the scores of real and of fake photos do not overlap, and likelihood has no maximum.
    """

    name: str
    sentence: str
    fit: Callable[[Floats, NDArray[np.int64]], Fitted]
    fewest: int = 10
    advised: int = 0
    bounded: bool = True


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
        # Two normal classes with an AUC of 0.92, whose logits are bent so that no logistic curve fits: isotonic is better than
        # those from 600 to 1000 photos on, and worse below, by 0.015 to 0.02 of log-loss at 140:
        # docs/explanation/calibration.md.
        # Niculescu-Mizil & Caruana (ICML 2005, section 5) find 200 to 1000 for ten learners.
        Method(ISOTONIC, "a curve of any shape that never falls", _isotonic, fewest=50, advised=1000),
        Method("platt", "a logistic function of the logit, with two parameters", lambda p, t: fit_logistic(PLATT, p, t)),
        Method("temperature", "the logit divided by one number", lambda p, t: fit_logistic(TEMPERATURE, p, t), bounded=False),
        # There, three parameters are worth it from about 600 photos on.
        Method(
            "beta",
            "a logistic function of ln p and ln(1 - p), with three parameters",
            lambda p, t: fit_logistic(BETA, p, t),
            advised=500,
            bounded=False,
        ),
        Method(NONE, "raw probabilities as they are", lambda p, t: (CalibrationCurve.identity(), {}), fewest=0),
    )
}
AUTO = "auto"  # `training.calibration.choice` chooses
CHOICES = (AUTO, *METHODS)
if TYPE_CHECKING:
    CalibrationMethod = str
else:
    CalibrationMethod = Literal[CHOICES]  # what the command line takes


def described() -> str:
    """The choices with a sentence each, for help texts."""
    auto = (
        f"auto: whichever does best when cross-validated, {ISOTONIC} from {METHODS[ISOTONIC].advised} photos on, and none "
        "where no curve helps"
    )
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
    """Fit one of `METHODS` to raw probabilities, float32[n], and labels, int64[n].

    The curve never falls, whatever the photos say. Raises `TooFewToCalibrate`.
    """
    chosen = METHODS[method]
    require_enough(method, len(labels))
    if method == NONE:
        return Calibration()
    return Calibration(method, *chosen.fit(raw.astype(np.float64), labels), len(labels))


def fit_all(raw: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Calibration]:
    """Every method, fitted on the same photos, to be compared on others; without those that need more photos."""
    return {name: fit_calibration(name, raw, labels) for name, method in METHODS.items() if len(labels) >= method.fewest}


def require_enough(method: str, n: int) -> None:
    """Raise `TooFewToCalibrate`, with what would do instead, when `n` photos are too few for `method`."""
    if method == AUTO or n >= METHODS[method].fewest:
        return
    able = [name for name, other in METHODS.items() if n >= other.fewest]
    raise TooFewToCalibrate(
        f"{method} calibration needs {METHODS[method].fewest} photos and there are {n}; give more, with a larger "
        f"--calibrate-fraction where they come from the training photos, or --calibration {' or '.join([AUTO, *able])}"
    )


def few_photos_warning(method: str, n: int) -> str | None:
    """What to tell the user where another method is likely to do better with so few photos."""
    if method == AUTO or n >= METHODS[method].advised:
        return None
    return (
        f"warning: {method} calibration on {n} photos; below {METHODS[method].advised} a curve of fewer parameters is mostly "
        "nearer to the truth: --calibration auto. The report compares all methods"
    )
