"""Warnings that a model's own numbers give: a coin's AUC, flat probabilities, one verdict for all."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from detector.model_warnings import AT_CHANCE, FLAT_PROBABILITIES, MISLEADING, ONE_VERDICT, model_warnings
from detector.verdict import Band
from training.calibration.methods import fit_calibration
from training.evaluation.metrics import evaluate


def measured(separation: float, n: int = 400, *, curve: str = "none", seed: int = 0) -> dict:
    """Metrics of exactly calibrated probabilities of two normal classes so many deviations apart, through a fitted curve."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    raw = expit(separation * rng.normal(separation * (labels - 0.5), 1)).astype(np.float32)
    return evaluate(labels, raw, fit_calibration(curve, raw, labels).curve(raw))


def codes(validation: dict, threshold: float = 0.5) -> list[str]:
    return [warning["code"] for warning in model_warnings(validation, threshold)]


@pytest.mark.parametrize("separation", [0.8, 2.0, 4.0])
def test_a_detector_that_tells_photos_apart_gets_none(separation: float) -> None:
    assert codes(measured(separation)) == []


def test_a_coin_with_a_flat_curve_gets_all_three_and_its_calibration_error_is_not_praised() -> None:
    validation = measured(-0.1, curve="platt")  # ranks these upside down, so the slope is held at 0
    three = {AT_CHANCE, FLAT_PROBABILITIES, ONE_VERDICT}
    assert set(codes(validation, 0.4)) == set(codes(validation, 0.6)) == three
    assert validation["ece"]["value"] < 1e-6
    assert validation["brier_skill"]["value"] == pytest.approx(0, abs=1e-6)
    said = {w["code"]: w["message"] for w in model_warnings(validation, 0.6)}
    assert "no better than a coin (AUC 0." in said[AT_CHANCE]
    assert "nine in ten of either class get 50.0 %" in said[FLAT_PROBABILITIES]
    assert said[ONE_VERDICT] == "it calls every validation photo Real at its threshold, 0.6"


def test_probabilities_worse_than_the_share_of_fakes_are_told_although_they_rank_well() -> None:
    validation = measured(2.0)
    labels = np.arange(400) % 2
    sunk = np.where(labels == 1, 0.03, 0.0).astype(np.float32)
    assert MISLEADING not in codes(validation)
    assert MISLEADING in codes(evaluate(labels, sunk, sunk))


def test_labels_the_wrong_way_round_are_guessed() -> None:
    validation = measured(2.0)
    validation["auc"] = {"value": 0.1, "low": 0.05, "high": 0.15}
    assert "are the labels swapped?" in model_warnings(validation, 0.5)[0]["message"]


def test_a_threshold_that_no_photo_reaches_gives_one_verdict() -> None:
    validation = measured(2.0)
    assert codes(validation, 0.5) == []
    assert codes(validation, 1 - 1e-9) == [ONE_VERDICT]
    assert codes(validation, 1e-9) == [ONE_VERDICT]
    assert model_warnings(validation, 0.5, Band(0.4, 0.6)) == []
    (warning,) = model_warnings(validation, 0.5, Band(1e-9, 1 - 1e-9))
    assert warning["message"].startswith("it calls every validation photo Uncertain with its band, 1e-09 to ")


def test_few_fakes_among_many_real_photos_are_not_taken_for_flat() -> None:
    labels = np.array([0] * 390 + [1] * 10)
    p = np.where(labels == 1, 0.97, 0.01).astype(np.float32)
    assert codes(evaluate(labels, p, p)) == []


def test_metrics_that_say_nothing_give_nothing() -> None:
    assert model_warnings({}, 0.5) == []
