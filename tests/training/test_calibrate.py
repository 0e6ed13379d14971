"""Calibration: each method as its papers give it, and as the straight pieces that are served."""

from __future__ import annotations

import json
from pathlib import Path

import joblib
import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from detector import CalibrationCurve
from tests.training.conftest import TINY, fit
from training.calibration.methods import TooFewToCalibrate, fit_all, fit_calibration, sampled

METHODS = ("isotonic", "platt", "temperature", "beta")


def scores(n: int = 400, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Raw probabilities four times too sure of themselves: the truth has a quarter of their logit, and a bias."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 6, n)
    return expit(z).astype(np.float32), (rng.random(n) < expit(z / 4 + 0.5)).astype(np.int64)


@pytest.mark.parametrize("method", METHODS)
def test_the_written_curve_is_the_fitted_function(method: str, tmp_path: Path) -> None:
    raw, labels = scores()
    fit_calibration(method, raw, labels).save(tmp_path)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert (record["method"], record["n"]) == (method, 400)
    curve, model = CalibrationCurve.from_dict(record), joblib.load(tmp_path / "calibrator.joblib")
    everywhere = np.concatenate([np.linspace(0, 1, 20001), expit(np.linspace(-20, 20, 20001))]).astype(np.float32)
    np.testing.assert_allclose(curve(everywhere), model.predict(everywhere.astype(np.float64)), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_it_mends_probabilities_that_are_too_sure(method: str) -> None:
    raw, labels = scores(20_000)
    at = expit(np.array([-8.0, -3.0, 0.0, 3.0, 8.0]))
    off = np.abs(fit_calibration(method, raw, labels).curve(at) - expit(logit(at) / 4 + 0.5)).max()
    assert off < (0.14 if method == "temperature" else 0.05)  # which has no bias to give


def test_platt_and_temperature_are_the_logistic_regressions_of_their_papers() -> None:
    raw, labels = scores()
    z = logit(raw.astype(np.float64).clip(2.0**-24, 1 - 2.0**-24))[:, None]
    fakes = labels.sum()
    high, low = (fakes + 1) / (fakes + 2), 1 / (len(labels) - fakes + 2)
    target = np.where(labels == 1, high, low)
    twice = LogisticRegression(C=np.inf, tol=1e-10).fit(
        np.vstack([z, z]), np.repeat([1, 0], len(z)), sample_weight=np.concatenate([target, 1 - target])
    )
    found = fit_calibration("platt", raw, labels).model.parameters
    assert found == pytest.approx({"slope": twice.coef_[0, 0], "intercept": twice.intercept_[0]}, rel=1e-3)
    scale = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(z, labels).coef_[0, 0]
    assert fit_calibration("temperature", raw, labels).model.parameters == pytest.approx({"slope": scale}, rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_a_curve_never_falls_even_where_the_ranking_is_upside_down(method: str) -> None:
    raw, labels = scores()
    calibration = fit_calibration(method, raw, 1 - labels)
    assert (np.diff(calibration.curve.y) >= 0).all()
    assert np.ptp(calibration.curve(raw)) < 0.3


def test_a_smooth_curve_is_sampled_where_it_bends() -> None:
    curve = sampled(lambda p: expit(np.log(p.clip(1e-7) / (1 - p).clip(1e-7)) * 3 + 8))
    assert len(curve.x) < 1000
    assert (np.diff(curve.x) > 0).all()


def test_isotonic_is_never_surer_than_its_photos_allow() -> None:
    labels = np.repeat([0, 1], 30)
    calibration = fit_calibration("isotonic", labels.astype(np.float32), labels)
    np.testing.assert_allclose(calibration.curve([0.0, 1.0]), [1 / 32, 31 / 32])


def test_without_calibration_the_curve_changes_nothing(tmp_path: Path) -> None:
    raw, labels = scores()
    fit_calibration("platt", raw, labels).save(tmp_path)
    fit_calibration("none", raw, labels).save(tmp_path)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert record == {"method": "none", "x": [0.0, 1.0], "y": [0.0, 1.0], "n": 0}
    assert not (tmp_path / "calibrator.joblib").exists()


def test_too_few_photos_are_refused_by_the_method_that_needs_more() -> None:
    raw, labels = scores(30)
    with pytest.raises(TooFewToCalibrate, match=r"isotonic calibration needs 50 photos and there are 30.*platt"):
        fit_calibration("isotonic", raw, labels)
    assert set(fit_all(raw, labels)) == {"platt", "temperature", "beta", "none"}


def test_isotonic_on_too_few_is_refused_before_anything_is_trained(tiny_set: Path, tmp_path: Path, capsys) -> None:
    assert fit("--data", tiny_set, "--out", tmp_path / "run", *TINY, "--calibration", "isotonic") == 2
    assert "there are 12; give more, with a larger --calibrate-fraction" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.pth").exists()
