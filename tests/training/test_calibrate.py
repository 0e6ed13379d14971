"""Calibration: each method as its papers give it, and as the straight pieces that are served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from detector import CalibrationCurve
from tests.training.conftest import TINY, fit
from training.calibration.logistic import sampled
from training.calibration.methods import METHODS as DECLARED
from training.calibration.methods import few_photos_warning, fit_all, fit_calibration
from training.errors import TooFewToCalibrate

METHODS = [name for name in DECLARED if name != "none"]
# Run alone, where nothing of this project can be imported: what a notebook on another machine does.
ELSEWHERE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("detector", "training", "export", "handlers", "serve", "benchmarks", "unmask"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
import joblib, numpy
model = joblib.load(sys.argv[1])
print(type(model).__module__.split(".")[0])
numpy.save(sys.argv[2], model.predict(numpy.load(sys.argv[2])))
"""


def scores(n: int = 400, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Raw probabilities four times too sure of themselves: the truth has a quarter of their logit, and a bias."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 6, n)
    return expit(z).astype(np.float32), (rng.random(n) < expit(z / 4 + 0.5)).astype(np.int64)


def everywhere() -> np.ndarray:
    return np.concatenate([np.linspace(0, 1, 20001), expit(np.linspace(-20, 20, 20001))]).astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_the_written_curve_is_the_fitted_function_for_scikit_learn_too(method: str, tmp_path: Path) -> None:
    raw, labels = scores()
    fit_calibration(method, raw, labels).save(tmp_path)
    record = json.loads((tmp_path / "calibration.json").read_text())
    assert (record["method"], record["n"]) == (method, 400)
    curve, model = CalibrationCurve.from_dict(record), joblib.load(tmp_path / "calibrator.joblib")
    assert type(model) is IsotonicRegression
    np.testing.assert_allclose(curve(everywhere()), model.predict(everywhere()), atol=1e-6)


def test_an_isotonic_curve_is_scikit_learns_and_a_logistic_one_that_of_its_parameters() -> None:
    raw, labels = scores()
    reference = IsotonicRegression(y_min=1 / ((labels == 0).sum() + 2), out_of_bounds="clip",
                                   y_max=1 - 1 / ((labels == 1).sum() + 2)).fit(raw, labels)  # fmt: skip
    at = everywhere()
    np.testing.assert_allclose(fit_calibration("isotonic", raw, labels).curve(at), reference.predict(at), atol=1e-4)
    p = at.astype(np.float64).clip(2.0**-24, 1 - 2.0**-24)
    platt, temperature, beta = (fit_calibration(name, raw, labels) for name in ("platt", "temperature", "beta"))
    k = platt.parameters
    np.testing.assert_allclose(platt.curve(at), expit(k["slope"] * logit(p) + k["intercept"]), atol=1e-4)
    np.testing.assert_allclose(temperature.curve(at), expit(temperature.parameters["slope"] * logit(p)), atol=1e-4)
    k = beta.parameters
    truth = expit(k["a"] * np.log(p) - k["b"] * np.log1p(-p) + k["intercept"])
    np.testing.assert_allclose(beta.curve(at), truth, atol=1e-4)


def test_the_joblib_file_loads_where_the_project_is_not_installed(tmp_path: Path) -> None:
    calibration = fit_calibration("beta", *scores())
    calibration.save(tmp_path)
    np.save(tmp_path / "p.npy", everywhere())
    command = [sys.executable, "-I", "-c", ELSEWHERE, tmp_path / "calibrator.joblib", tmp_path / "p.npy"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.stdout == "sklearn\n", ran.stderr
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), calibration.curve(everywhere()), atol=1e-6)


def test_names_and_sentences_are_read_without_scipy_and_scikit_learn() -> None:
    code = (
        "import sys, training.calibration.methods as m; m.described(); print({'scipy', 'sklearn', 'joblib'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout == "set()\n", ran.stderr


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
    found = fit_calibration("platt", raw, labels).parameters
    assert found == pytest.approx({"slope": twice.coef_[0, 0], "intercept": twice.intercept_[0]}, rel=1e-3)
    scale = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10).fit(z, labels).coef_[0, 0]
    assert fit_calibration("temperature", raw, labels).parameters == pytest.approx({"slope": scale}, rel=1e-3)


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
    assert set(fit_all(raw, labels)) == set(DECLARED) - {"isotonic"}


def test_a_method_that_is_asked_for_is_taken_and_warned_of_where_it_is_advised_for_more_photos() -> None:
    assert fit_calibration("isotonic", *scores(140)).method == "isotonic"
    assert "isotonic calibration on 140 photos; below 1000" in (few_photos_warning("isotonic", 140) or "")
    assert few_photos_warning("isotonic", 1000) is few_photos_warning("platt", 20) is few_photos_warning("auto", 20) is None


def test_isotonic_on_too_few_is_refused_before_anything_is_trained(tiny_set: Path, tmp_path: Path, capsys) -> None:
    assert fit("--data", tiny_set, "--out", tmp_path / "run", *TINY, "--calibration", "isotonic") == 2
    assert "there are 12; give more, with a larger --calibrate-fraction" in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.pth").exists()
