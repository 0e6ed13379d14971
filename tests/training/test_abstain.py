"""The band of Uncertain: what it promises holds on other photos, and what can't be promised is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from detector import Band, CalibrationCurve, UsageError
from tests.training.conftest import TINY, draw, fit
from training.calibration.abstain import RISK, choose_band
from training.calibration.methods import fit_calibration
from training.errors import TooFewToAbstain
from training.evaluation.abstention import abstention, risk_coverage
from training.evaluation.evaluate import from_checkpoint
from training.options import FitOptions
from unmask.__main__ import main

DRAWS = 300


def own_curve(raw: np.ndarray, labels: np.ndarray) -> CalibrationCurve:
    """Fitted on the very photos that the band is chosen on, with plateaus and steps."""
    return fit_calibration("isotonic", raw, labels).curve


def no_curve(raw: np.ndarray, labels: np.ndarray) -> CalibrationCurve:
    return CalibrationCurve.identity()


@pytest.mark.parametrize("curve", [no_curve, own_curve])
@pytest.mark.parametrize(("apart", "rates"), [(0.5, (0.05, 0.1)), (2.0, (0.03, 0.05)), (5.0, (0.05, 0.05))])
def test_both_rates_hold_on_other_photos_as_often_as_is_promised(
    curve: Callable[..., CalibrationCurve], apart: float, rates: tuple[float, float]
) -> None:
    """Logits are normal, so that the true rates of each band are known: of a mediocre, a fair and a perfect detector."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(DRAWS):
        labels = np.repeat([0, 1], [160, 120])
        raw = expit(rng.normal(np.where(labels, apart / 2, -apart / 2), 1)).astype(np.float32)
        fitted = curve(raw, labels)
        choice = choose_band(fitted(raw), labels, rates)
        lower, upper = choice["band"]
        grid = np.linspace(-9, 9, 4001)
        served = fitted(expit(grid)).astype(np.float64)  # never falls, so a bound on it is one on the logit
        fake_from, real_below = (grid[min(np.searchsorted(served, end), len(grid) - 1)] for end in (upper, lower))
        found.append((norm.sf(fake_from, -apart / 2), norm.cdf(real_below, apart / 2)))
        assert lower <= choice["threshold"] <= upper
    for rate, true in zip(rates, np.array(found).T, strict=True):
        chance = 3 * np.sqrt(RISK * (1 - RISK) / DRAWS)
        assert (true > rate).mean() <= RISK + chance
        if curve is no_curve and apart < 5:
            assert true.mean() > rate / 3  # narrow enough to be of use


def test_where_one_threshold_keeps_both_rates_no_photo_is_uncertain() -> None:
    p = np.concatenate([np.linspace(0.01, 0.3, 100), np.linspace(0.7, 0.99, 100)])
    choice = choose_band(p, np.repeat([0, 1], 100), (0.05, 0.05))
    assert choice["band"] == [choice["threshold"]] * 2 == [0.5, 0.5]
    assert choice["uncertain"] == 0
    assert "one threshold, 0.5, keeps both rates" in choice["notes"][0]
    low = choose_band(p / 3, np.repeat([0, 1], 100), (0.05, 0.05))
    assert 0.1 < low["threshold"] < 0.25


def test_a_plateau_lies_on_one_side_of_an_end_whole() -> None:
    p = np.repeat([0.1, 0.4, 0.6, 0.9], 50)
    labels = np.tile([0, 1], 100)
    lower, upper = choose_band(p, labels, (0.2, 0.2))["band"]
    assert 0 < lower < 0.1
    assert 0.9 < upper < 1
    flat = choose_band(np.full(200, 0.5), labels, (0.2, 0.2))
    assert flat["uncertain"] == 200
    assert "every one of these photos is Uncertain" in flat["notes"][0]


def test_certain_mistakes_leave_no_band() -> None:
    choice = choose_band(np.repeat([0.2, 1.0], [80, 120]), np.repeat([0, 1], 100), (0.05, 0.05))
    assert choice["band"] is None
    assert "20" not in choice["notes"][0]
    assert "too many real photos have a probability of exactly 1" in choice["notes"][0]


def test_too_few_photos_are_refused_with_the_rates_that_they_can_tell() -> None:
    p, labels = np.linspace(0, 1, 100), np.repeat([0, 1], [58, 42])
    with pytest.raises(TooFewToAbstain) as refused:
        choose_band(p, labels, (0.05, 0.1))
    assert "59 real photos for a rate of 0.05, and there are 58" in refused.value.message
    assert "fake photos for" not in refused.value.message
    assert "--abstain 0.051,0.1 or more" in refused.value.message
    choose_band(p, labels, (0.051, 0.1))
    with pytest.raises(TooFewToAbstain, match="there are 0"):
        choose_band(p[:58], labels[:58], (0.1, 0.1))


@pytest.mark.parametrize(
    "wrong", [{"abstain": (0.0, 0.1)}, {"abstain": (0.1, 0.5)}, {"abstain": (0.1, 0.1), "target_fpr": 0.1}]
)
def test_rates_that_can_not_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--abstain"):
        FitOptions(Path(), **wrong)


def test_what_a_band_does_is_counted_by_class() -> None:
    labels, p = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0.1, 0.5, 0.9, 0.1, 0.3, 0.7, 0.9])
    told = abstention(labels, p, Band(0.3, 0.9))
    assert (told["n"], told["answered"]) == (7, 4)
    assert told["coverage"]["value"] == 4 / 7
    assert told["fpr"]["value"] == 1 / 3
    assert told["fnr"]["value"] == 1 / 4
    assert told["error"]["value"] == 2 / 4
    assert abstention(labels, np.full(7, 0.5), Band(0.3, 0.9))["error"] is None


def test_the_surest_photos_are_answered_first() -> None:
    labels, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.6, 0.4])
    coverage, error = risk_coverage(labels, p, 0.5)
    np.testing.assert_allclose(coverage, [0.5, 1])
    np.testing.assert_allclose(error, [0, 0.5])


@pytest.fixture(scope="module")
def new_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty photos that are hard to tell apart."""
    folder = tmp_path_factory.mktemp("hard")
    for label, grain in (("Real", 6), ("Fake", 14)):
        draw(folder / label, 40, grain=grain, seed=170 + grain)
    return folder


def calibrate(*arguments: object) -> int:
    return main(["calibrate", *map(str, arguments)])


@pytest.mark.slow
def test_a_run_is_given_a_band_it_is_judged_with_and_loses_it_with_its_curve(
    tiny_run: Path, tiny_set: Path, new_photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    assert calibrate("--run", run, "--data", new_photos, "--abstain", "0.01,0.1") == 2
    assert "299 real photos for a rate of 0.01, and there are 40" in capsys.readouterr().err
    assert calibrate("--run", run, "--data", new_photos, "--abstain", "0.1,0.1", "--target-fpr", 0.1) == 2
    assert calibrate("--run", run, "--data", new_photos, "--abstain", "0.1") == 2
    assert "such as 0.05,0.05" in capsys.readouterr().err
    assert calibrate("--run", run, "--data", new_photos, "--abstain", "0.08,0.15") == 0
    metrics = json.loads((run / "metrics.json").read_text())
    choice, band = metrics["band_choice"], Band.from_list(metrics["uncertain"])
    assert (choice["n_real"], choice["n_fake"], choice["target_fpr"], choice["target_fnr"]) == (40, 40, 0.08, 0.15)
    assert choice["band"] == metrics["uncertain"]
    assert band.lower < metrics["threshold"] <= band.upper
    said = capsys.readouterr().out
    assert f"Uncertain from {band.lower:.4f} to {band.upper:.4f}" in said
    assert from_checkpoint(run / "best_model.pth").band == band
    assert main(["evaluate", "--checkpoint", str(run / "best_model.pth"), "--data", str(tiny_set), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["abstention"] == metrics["abstention"]
    assert not any(band.lower <= mistake["calibrated"] < band.upper for mistake in judged["mistakes"])
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "Uncertain" in page
    assert (run / "report" / "coverage.png").is_file()
    assert "Uncertain" in (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert calibrate("--run", run, "--data", new_photos) == 0
    assert "is dropped; --abstain 0.08,0.15 chooses it anew" in capsys.readouterr().err
    after = json.loads((run / "metrics.json").read_text())
    assert (after["uncertain"], after["band_choice"], after["abstention"]) == (None, None, None)


@pytest.mark.slow
def test_training_chooses_a_band_on_photos_that_it_held_out(tiny_set: Path, tmp_path: Path, capsys) -> None:
    asked = ["--data", tiny_set, "--epochs", 1, *TINY]
    assert fit(*asked, "--out", tmp_path / "few", "--abstain", "0.01,0.01") == 2
    assert "--abstain 0.01,0.01 takes held-out photos that can tell such rates" in capsys.readouterr().err
    assert not (tmp_path / "few" / "best_model.pth").exists()
    out = tmp_path / "run"
    assert fit(*asked, "--out", out, "--abstain", "0.4,0.4", "--calibration", "none", "--calibrate-fraction", 0.3) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["band_choice"]["n_real"] == metrics["counts"]["calibrate"]["real"] > 0
    assert metrics["arguments"]["abstain"] == [0.4, 0.4]
    assert metrics["abstention"]["n"] == 60
    again = ["--config", out / "run.yaml", "--out", tmp_path / "again"]
    assert main(["train", *map(str, again), "--no-report"]) == 0
    repeated = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert repeated["uncertain"] == pytest.approx(metrics["uncertain"], abs=1e-4)
