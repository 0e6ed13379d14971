"""Calibration: the isotonic curve from raw to calibrated probability, fitted on photos used for nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from detector.calibration import CalibrationCurve


def fit_isotonic(raw: NDArray[np.float32], labels: NDArray[np.int64]) -> IsotonicRegression:
    """Isotonic regression (Zadrozny & Elkan, KDD 2002) of the label on the raw probability, constant outside their range.

    It stays as far from 0 and 1 as so many photos can tell, 1/(n_real + 2) and 1/(n_fake + 2) (Platt 1999, section 2.2):
    seventy photos in a row that are real don't make the next one real for certain.
    """
    fakes = int((labels == 1).sum())
    reals = len(labels) - fakes
    model = IsotonicRegression(y_min=1 / (reals + 2), y_max=(fakes + 1) / (fakes + 2), out_of_bounds="clip")
    return model.fit(raw.astype(np.float64), labels)


def curve_of(model: IsotonicRegression) -> CalibrationCurve:
    """The same function as float32 knots, which is what is exported and served."""
    return CalibrationCurve.from_knots(model.X_thresholds_, model.y_thresholds_)


def save_calibration(directory: Path, model: IsotonicRegression | None, n: int) -> CalibrationCurve:
    """Write `calibration.json`, and `calibrator.joblib` for notebooks; without a model the curve changes nothing."""
    curve = CalibrationCurve.identity() if model is None else curve_of(model)
    record: dict[str, Any] = {"method": "none" if model is None else "isotonic", **curve.to_dict(), "n": n}
    (directory / "calibration.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    if model is not None:
        joblib.dump(model, directory / "calibrator.joblib")
    return curve
