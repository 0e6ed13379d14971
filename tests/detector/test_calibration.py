"""CalibrationCurve: exact interpolation in float32, and steps that float noise can't cross."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from detector import CalibrationCurve, FileError


def isotonic(seed: int = 0, n: int = 400) -> CalibrationCurve:
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    fit = IsotonicRegression(out_of_bounds="clip").fit(p, rng.random(n) < p**2)
    return CalibrationCurve.from_knots(fit.X_thresholds_, fit.y_thresholds_)


@st.composite
def curves(draw: st.DrawFn) -> CalibrationCurve:
    """Any valid curve, steps of one float32 unit included."""
    n = draw(st.integers(2, 30))
    x = sorted(draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n, unique=True)))
    y = sorted(draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)))
    return CalibrationCurve(np.array(x, np.float32), np.array(y, np.float32))


def test_it_agrees_with_float64_interpolation():
    curve = isotonic()
    p = np.linspace(0, 1, 20_001, dtype=np.float32)
    exact = np.interp(p.astype(np.float64), curve.x.astype(np.float64), curve.y.astype(np.float64))
    assert np.abs(curve(p) - exact).max() < 2e-7


def test_outside_the_knots_it_is_constant_and_nan_stays_nan():
    curve = CalibrationCurve(np.array([0.2, 0.8]), np.array([0.1, 0.9]))
    assert curve([0.0, 0.2, 0.5, 0.8, 1.0]) == pytest.approx([0.1, 0.1, 0.5, 0.9, 0.9])
    assert np.isnan(curve([np.nan, 0.5])).tolist() == [True, False]
    assert curve(np.float32(0.5)).dtype == np.float32


def test_a_plateau_gives_one_number_exactly():
    curve = CalibrationCurve(np.array([0.1, 0.7, 0.9]), np.array([0.3, 0.3, 1.0]))
    assert len(set(curve(np.linspace(0.1, 0.7, 999, dtype=np.float32)).tolist())) == 1


def test_knots_that_are_one_in_float32_are_merged():
    curve = CalibrationCurve.from_knots([0.1, 0.5, 0.5 + 3e-12, 0.9], [0.0, 0.2, 0.6, 1.0])
    assert len(curve.x) == 3
    assert curve([0.5]) == pytest.approx([0.4])


def test_a_fit_on_one_value_is_constant():
    curve = CalibrationCurve.from_knots([0.4], [0.25])
    assert curve([0, 0.4, 1]).tolist() == [0.25, 0.25, 0.25]


def test_the_knots_survive_json_exactly():
    curve = isotonic(3)
    again = CalibrationCurve.from_dict(json.loads(json.dumps(curve.to_dict())))
    assert (again.x == curve.x).all()
    assert (again.y == curve.y).all()


@pytest.mark.parametrize(
    ("x", "y"),
    [([0.1], [0.2]), ([0.5, 0.1], [0, 1]), ([0, 1], [1, 0]), ([0, 2], [0, 1]), ([0, np.nan], [0, 1]), ([0, 1], [0, 0, 1])],
)
def test_what_is_no_monotone_curve_is_refused(x, y):
    with pytest.raises(FileError, match="calibration curve"):
        CalibrationCurve(np.array(x), np.array(y))


@settings(max_examples=300, deadline=None)
@given(curves(), st.floats(2, 5000))
def test_a_bounded_slope_is_kept_and_only_steps_move(curve, limit):
    bounded = curve.with_max_slope(limit)
    assert bounded.max_slope <= limit * 1.13  # float32 rounding of knots 1e-6 apart
    p = np.linspace(0, 1, 4001, dtype=np.float32)
    assert (np.diff(bounded(p)) >= -1e-6).all()
    # Each answer is one that the curve gave within a step's half-width of the same place, but for rounding: knots move along
    # their ramp by up to half of what lies between two float32 numbers below one.
    reach, rounding = np.float32(1 / limit + 2e-6), limit * 2**-25 + 1e-6
    assert (bounded(p) <= curve(p + reach) + rounding).all()
    assert (bounded(p) >= curve(p - reach) - rounding).all()


def test_noise_below_the_measured_moves_an_answer_by_less_than_a_thousandth():
    knots = np.linspace(0.1, 0.9, 20)
    steep = CalibrationCurve.from_knots(np.sort(np.r_[knots, knots + 2e-7]), np.repeat(np.linspace(0, 1, 21), 2)[1:-1])
    noise = 2e-6
    bounded = steep.with_max_slope(1e-3 / (2 * noise))
    p = np.random.default_rng(0).choice(steep.x, 5000) + np.linspace(-1e-5, 1e-5, 5000, dtype=np.float32)
    assert np.abs(steep(p + np.float32(noise)) - steep(p)).max() > 1e-3
    assert np.abs(bounded(p + np.float32(noise)) - bounded(p)).max() < 1e-3


def test_a_gentle_curve_is_left_as_it_is():
    curve = CalibrationCurve.identity()
    assert curve.with_max_slope(10) is curve
