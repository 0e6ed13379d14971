"""The choice of a calibration method: by photos that it was not fitted on, and none where no curve helps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from training.calibration.choice import choose
from training.calibration.methods import METHODS


def scored(n: int, slope: float = 1.0, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Raw probabilities whose logits are `slope` times the true ones, plus `shift`."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 2, n)
    return expit(slope * logit + shift).astype(np.float32), (rng.random(n) < expit(logit)).astype(np.int64)


@pytest.mark.parametrize("seed", range(3))
def test_right_probabilities_are_mostly_left_as_they_are_and_never_given_an_isotonic_curve_of_few_photos(seed: int) -> None:
    chosen = choose(*scored(140, seed=seed))
    assert chosen.method != "isotonic"
    assert "isotonic" not in chosen.held_out
    if chosen.method == "none":
        assert "no curve has a smaller log-loss and Brier score" in chosen.why


def test_none_is_taken_where_no_curve_helps() -> None:
    taken = [choose(*scored(140, seed=seed)).method for seed in range(12)]
    assert taken.count("none") >= 6


@pytest.mark.parametrize(("slope", "shift"), [(4.0, 0.0), (1.0, 2.0), (3.0, 1.5)])
def test_wrong_probabilities_get_a_curve_with_few_parameters_that_held_out_photos_confirm(slope: float, shift: float) -> None:
    raw, labels = scored(200, slope, shift)
    chosen = choose(raw, labels)
    assert chosen.method in ("platt", "temperature", "beta")
    assert "smallest log-loss, cross-validated among the 200 photos, which are too few to try isotonic" in chosen.why
    brier = {name: np.mean((p - labels) ** 2) for name, p in chosen.held_out.items()}
    assert brier[chosen.method] < brier["none"]
    # as many photos again, which nothing was fitted or chosen on
    other, truth = scored(2000, slope, shift, seed=9)
    curve, _ = METHODS[chosen.method].fit(raw.astype(np.float64), labels)
    assert np.mean((curve(other) - truth) ** 2) < np.mean((other - truth) ** 2)


def test_isotonic_is_tried_from_the_advised_number_of_photos_on_and_taken_where_no_logistic_curve_fits() -> None:
    advised = METHODS["isotonic"].advised
    raw, labels = scored(2 * advised)
    truth = np.log(raw / (1 - raw))
    bent = expit(truth**3 / 2).astype(np.float32)
    assert choose(bent, labels).method == "isotonic"
    assert "isotonic" in choose(bent[:advised], labels[:advised]).held_out
    few = choose(bent[: advised - 1], labels[: advised - 1])
    assert few.method != "isotonic"
    assert "isotonic" not in few.held_out
    assert choose(raw, labels).method != "isotonic"  # these need no curve


def test_it_repeats_and_takes_what_it_can_from_very_few() -> None:
    raw, labels = scored(60, 3)
    one, two = choose(raw, labels), choose(raw, labels)
    assert one.method == two.method
    assert all((one.held_out[name] == two.held_out[name]).all() for name in one.held_out)
    assert choose(raw[:9], labels[:9]).method == "none"
    assert choose(raw, np.zeros(60, np.int64)).method == "none"
    lonely = np.zeros(60, np.int64)
    lonely[:2] = 1
    assert choose(raw, lonely).method in METHODS


def test_scores_that_do_not_overlap_make_no_curve_certain() -> None:
    labels = np.arange(40) % 2
    raw = np.where(labels == 1, 0.7, 0.3).astype(np.float32) + np.linspace(-0.1, 0.1, 40, dtype=np.float32)
    chosen = choose(raw, labels)
    assert set(chosen.held_out) == {"none", "platt"}
    curve, _ = METHODS[chosen.method].fit(raw.astype(np.float64), labels)
    assert 0.002 < curve(raw.min()) < curve(raw.max()) < 0.998
