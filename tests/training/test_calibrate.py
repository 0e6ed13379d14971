"""The isotonic curve, as scikit-learn's object and as the knots that are served."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import numpy as np

from detector import CalibrationCurve
from training.calibrate import fit_isotonic, save_calibration


def _scores(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    raw = rng.random(n).astype(np.float32)
    return raw, (rng.random(n) < raw**3).astype(np.int64)


def test_the_written_curve_is_the_fitted_function(tmp_path: Path) -> None:
    raw, labels = _scores()
    save_calibration(tmp_path, fit_isotonic(raw, labels), len(raw))
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert (record["method"], record["n"]) == ("isotonic", 400)
    curve, model = CalibrationCurve.from_dict(record), joblib.load(tmp_path / "calibrator.joblib")
    everywhere = np.linspace(0, 1, 5001, dtype=np.float32)
    np.testing.assert_allclose(curve(everywhere), model.predict(everywhere.astype(np.float64)), atol=1e-6)


def test_it_mends_probabilities_that_are_too_high(tmp_path: Path) -> None:
    raw, labels = _scores(4000)
    curve = save_calibration(tmp_path, fit_isotonic(raw, labels), len(raw))
    at = np.array([0.3, 0.5, 0.8], np.float32)
    assert np.abs(curve(at) - at**3).max() < 0.06


def test_it_is_never_surer_than_its_photos_allow() -> None:
    labels = np.repeat([0, 1], 30)
    model = fit_isotonic(labels.astype(np.float32), labels)
    np.testing.assert_allclose(model.predict([0.0, 1.0]), [1 / 32, 31 / 32])


def test_without_a_model_the_curve_changes_nothing(tmp_path: Path) -> None:
    save_calibration(tmp_path, None, 0)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert record == {"method": "none", "x": [0.0, 1.0], "y": [0.0, 1.0], "n": 0}
    assert not (tmp_path / "calibrator.joblib").exists()
