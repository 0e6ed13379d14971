"""Metrics against scikit-learn, and what their intervals are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from sklearn import metrics as reference

from training.evaluation.metrics import (
    average_precision,
    compare_probabilities,
    equal_mass_bins,
    evaluate,
    ranking,
    resample_counts,
    roc_auc,
    score_histogram,
    smooth_ece,
    wilson,
    with_intervals,
)


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """300 labels, raw probabilities, and calibrated ones on plateaus with many ties."""
    rng = np.random.default_rng(0)
    labels = (rng.random(300) < 0.4).astype(np.int64)
    raw = 1 / (1 + np.exp(-(labels * 1.6 - 0.8 + rng.normal(size=300))))
    return labels, raw.astype(np.float32), np.round(raw, 1).clip(0.05, 0.95).astype(np.float32)


def test_values_are_scikit_learns(scored: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, raw, calibrated = scored
    found = evaluate(labels, raw, calibrated, threshold=0.5)
    verdicts = calibrated >= 0.5
    expected = {
        "auc": reference.roc_auc_score(labels, raw),
        "average_precision": reference.average_precision_score(labels, raw),
        "accuracy": reference.accuracy_score(labels, verdicts),
        "precision": reference.precision_score(labels, verdicts),
        "recall": reference.recall_score(labels, verdicts),
        "f1": reference.f1_score(labels, verdicts),
        "brier": reference.brier_score_loss(labels, calibrated.astype(float)),
        "brier_raw": reference.brier_score_loss(labels, raw.astype(float)),
        "log_loss": reference.log_loss(labels, calibrated.astype(float)),
        "log_loss_raw": reference.log_loss(labels, raw.astype(float)),
    }
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected)
    tn, fp, fn, tp = reference.confusion_matrix(labels, verdicts).ravel()
    assert found["confusion"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}


def test_the_low_end_of_the_roc_curve_is_scikit_learns(scored: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, raw, _ = scored
    found = evaluate(labels, raw, raw, threshold=0.7)
    fpr, tpr, _ = reference.roc_curve(labels, raw, drop_intermediate=False)
    for rate in (0.01, 0.001):
        assert found[f"tpr_at_fpr_{rate}"]["value"] == pytest.approx(tpr[fpr <= rate].max())
    assert found["eer"]["value"] == pytest.approx(brentq(lambda x: np.interp(x, fpr, tpr) - (1 - x), 0, 1), abs=1e-6)
    assert found["fpr"]["value"] == pytest.approx((raw[labels == 0] >= np.float32(0.7)).mean())
    assert f"{(labels == 0).sum()} real photos can't tell a rate of 0.1%" in found["notes"][0]
    assert evaluate(np.tile(labels, 6), np.tile(raw, 6), np.tile(raw, 6))["notes"] == []


def by_hand(labels: np.ndarray, p: np.ndarray) -> float:
    """Smooth ECE straight from its definition: a sum over photos and their mirror images, and a root."""
    at = (np.arange(1500) + 0.5) / 1500
    images = [2 * k + sign * p for k in range(-2, 3) for sign in (1, -1)]

    def error(width: float) -> float:
        smooth = sum(((labels - p) * np.exp(-(((at[:, None] - image) / width) ** 2) / 2)).sum(1) for image in images) / (
            width * np.sqrt(2 * np.pi) * len(p)
        )
        return float(np.abs(smooth).mean())

    return float(brentq(lambda width: error(width) - width, 1e-3, 1, xtol=1e-6))


@pytest.mark.parametrize("power", [1.0, 0.4, 3.0])
def test_smooth_calibration_error_is_that_of_its_definition(power: float) -> None:
    rng = np.random.default_rng(3)
    p = rng.random(250)
    labels = (rng.random(250) < p**power).astype(np.int64)
    weights = resample_counts(labels, 2, rng)
    for row, found in zip([np.ones(250), *weights], smooth_ece(labels, p, np.vstack([np.ones(250), weights])), strict=True):
        drawn = np.repeat(np.arange(250), row.astype(int))
        assert found == pytest.approx(by_hand(labels[drawn], p[drawn]), abs=3e-4)


def test_right_probabilities_lie_within_what_chance_gives_and_wrong_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(400)
    right, wrong = ((rng.random(400) < truth).astype(np.int64) for truth in (p, p**3))
    for labels, within in ((right, True), (wrong, False)):
        found = evaluate(labels, p, p)
        for name in ("ece", "smooth_ece"):
            assert (found[name]["value"] < found["by_chance"][name]["high"]) is within


def test_a_share_has_an_interval_at_nought_too() -> None:
    assert wilson(0, 20) == pytest.approx({"value": 0, "low": 0, "high": 0.1611}, abs=1e-3)


def test_several_probabilities_are_compared_on_the_resamples_of_one(
    scored: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, raw, calibrated = scored
    alone = evaluate(labels, raw, calibrated, seed=3)
    compared = compare_probabilities(labels, {"before": raw, "after": calibrated}, seed=3)
    for error in ("brier", "log_loss", "ece", "smooth_ece"):
        assert compared["before"][error] == pytest.approx(alone[f"{error}_raw"])
        assert compared["after"][error] == pytest.approx(alone[error])


def test_a_resample_is_scored_as_if_photos_were_repeated(scored: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, _, tied = scored
    counts = resample_counts(labels, 5, np.random.default_rng(1))
    scores = tied.astype(np.float64)
    aucs, precisions = roc_auc(labels, scores, counts), average_precision(labels, scores, counts)
    for row, auc, precision in zip(counts.astype(int), aucs, precisions, strict=True):
        repeated = np.repeat(np.arange(len(labels)), row)
        assert labels[repeated].sum() == labels.sum()  # stratified: as many fakes as there were
        assert auc == pytest.approx(reference.roc_auc_score(labels[repeated], scores[repeated]))
        assert precision == pytest.approx(reference.average_precision_score(labels[repeated], scores[repeated]))


def test_calibration_error_is_the_gap_between_said_and_true(scored: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, raw, _ = scored
    bins = equal_mass_bins(raw.astype(np.float64))
    sizes = np.bincount(bins)
    assert len(sizes) == 15
    assert sizes.min() == sizes.max() == 20
    gaps = [abs(labels[bins == b].mean() - raw[bins == b].mean()) for b in range(15)]
    assert evaluate(labels, raw, raw)["ece"]["value"] == pytest.approx(np.mean(gaps))


def test_equal_scores_share_a_bin() -> None:
    bins = equal_mass_bins(np.repeat([0.2, 0.7], [50, 5]))
    assert len(set(bins[:50])) == len(set(bins[50:])) == 1
    assert bins[0] != bins[50]


def test_an_interval_holds_its_value_and_narrows_with_more_photos(
    scored: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, raw, calibrated = scored
    few = evaluate(labels, raw, calibrated)["auc"]
    many = evaluate(*(np.tile(v, 9) for v in scored))["auc"]
    assert few["low"] < few["value"] < few["high"]
    assert (many["high"] - many["low"]) * 2 < few["high"] - few["low"]  # a third, by the root of nine


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    # Scores 1 apart in units of their deviation: the true AUC is Phi(1 / sqrt 2) = 0.7602.
    rng, labels, covered = np.random.default_rng(5), np.repeat([0, 1], 60), 0
    for _ in range(60):
        raw = labels + rng.normal(size=120)
        auc = with_intervals(lambda weights, raw=raw: ranking(labels, raw, weights), labels, seed=0)["auc"]
        covered += auc["low"] <= 0.7602 <= auc["high"]
    assert 51 <= covered <= 60


def test_the_same_seed_gives_the_same_intervals(scored: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    assert evaluate(*scored, seed=4) == evaluate(*scored, seed=4)
    assert evaluate(*scored, seed=4)["auc"]["low"] != evaluate(*scored, seed=5)["auc"]["low"]


def test_certain_and_wrong_is_a_large_loss_and_not_an_infinite_one() -> None:
    found = evaluate(np.array([0, 1, 1, 0]), np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0]))
    assert 5 < found["log_loss"]["value"] < 20


def test_the_score_histogram_counts_every_photo_once() -> None:
    histogram = score_histogram(np.array([0.0, 0.04, 0.05, 0.5, 1.0], np.float32))
    assert len(histogram["edges"]) == 21
    assert histogram["counts"][0] == 2
    assert histogram["counts"][1] == 1
    assert histogram["counts"][-1] == 1
    assert sum(histogram["counts"]) == 5


def test_the_interval_of_a_calibration_error_holds_its_value() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(size=60)  # few photos, where resampling's own noise would push both ends above the value
    labels = (rng.uniform(size=60) < p).astype(np.int64)
    reported = evaluate(labels, p, p)
    for name in ("ece", "smooth_ece", "ece_raw", "smooth_ece_raw"):
        assert 0 <= reported[name]["low"] <= reported[name]["value"] <= reported[name]["high"], name
