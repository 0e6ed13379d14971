"""A curve with a bounded slope: monotone, near the one it came from, and stable when bounded again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector import CalibrationCurve


@st.composite
def steep_curves(draw: st.DrawFn) -> CalibrationCurve:
    """Any valid curve; often many knots in a narrow place, steps one float32 wide, plateaus, steps at 0 or 1."""
    n = draw(st.integers(2, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = 10.0 ** draw(st.floats(-6.5, 0))
    x = draw(st.sampled_from([0.0, 1 - width, rng.random() * (1 - width)])) + width * rng.random(n)
    if draw(st.booleans()):
        x = np.concatenate([x, np.nextafter(x.astype(np.float32), np.float32(2)), [0, 1]])
    x = np.unique(np.clip(x, 0, 1).astype(np.float32))
    if len(x) < 2:
        x = np.array([0, 1], np.float32)
    levels = draw(st.integers(1, 80))
    y = np.sort(np.round(rng.random(len(x)) ** draw(st.floats(0.2, 5)) * levels) / levels)
    return CalibrationCurve(x, y.astype(np.float32))


limits = st.floats(-1, 5).map(lambda e: 10.0**e)
GRID = np.linspace(0, 1, 3001, dtype=np.float32)


@settings(max_examples=300, deadline=None)
@given(steep_curves(), limits)
def test_the_slope_is_at_most_what_was_asked(curve, limit):
    assert curve.with_max_slope(limit).max_slope <= limit


@settings(max_examples=200, deadline=None)
@given(steep_curves(), limits)
def test_it_stays_monotone_and_within_the_range_of_the_curve(curve, limit):
    bounded = curve.with_max_slope(limit)
    values = bounded(np.union1d(GRID, bounded.x))
    assert (np.diff(values) >= -1e-7).all()
    assert values.min() >= curve.y[0] - 1e-6
    assert values.max() <= curve.y[-1] + 1e-6


@settings(max_examples=200, deadline=None)
@given(steep_curves(), limits)
def test_bounding_twice_is_bounding_once(curve, limit):
    once = curve.with_max_slope(limit)
    assert once.with_max_slope(limit) is once


@settings(max_examples=200, deadline=None)
@given(steep_curves(), limits)
def test_an_answer_moves_only_as_far_as_a_step_within_reach_explains(curve, limit):
    """Whatever lies further from every step than a ramp is wide keeps its answer."""
    bounded = curve.with_max_slope(limit)
    reach = min(1.0, 1.02 * (float(curve.y[-1]) - float(curve.y[0])) / limit + 2e-7)
    low, high = curve(np.clip(GRID - np.float32(reach), 0, 1)), curve(np.clip(GRID + np.float32(reach), 0, 1))
    moved = np.abs(bounded(GRID) - curve(GRID))
    assert (moved <= high - low + 2e-5 + limit * 2**-24).all()  # a ramp's foot is where float32 has a number


@settings(max_examples=100, deadline=None)
@given(steep_curves(), st.floats(2, 1e4))
def test_noise_moves_no_answer_by_more_than_slope_times_noise(curve, limit):
    bounded = curve.with_max_slope(limit)
    near = np.concatenate([bounded.x, GRID])
    noise = np.float32(1e-3 / limit)
    assert np.abs(bounded(near + noise) - bounded(near - noise)).max() <= 2e-3 + 4 * limit * np.spacing(np.float32(1))


def test_a_constant_curve_is_left_as_it_is():
    curve = CalibrationCurve(np.array([0, 1]), np.array([0.3, 0.3]))
    assert curve.with_max_slope(1e-3) is curve


@pytest.mark.parametrize(("x", "where"), [([0, 1e-7], 0.0), ([0.5, 0.5 + 1e-7], 0.5), ([1 - 6e-8, 1], 1.0)])
def test_two_knots_become_one_ramp_wherever_they_are(x, where):
    bounded = CalibrationCurve(np.array(x, np.float32), np.array([0.2, 0.8])).with_max_slope(10)
    assert bounded.max_slope <= 10
    assert bounded([where]) == pytest.approx([0.5], abs=1e-3)
    assert bounded([max(0, where - 0.07), min(1, where + 0.07)]) == pytest.approx(
        [0.2 if where > 0 else 0.5, 0.8 if where < 1 else 0.5], abs=0.36
    )


def test_many_steps_within_one_ramp_become_one_ramp():
    """A thousand knots a float apart carry one step's worth of rise: none is lost, none stays steep."""
    x = np.arange(1000, dtype=np.float32) * np.float32(2.0**-24) + np.float32(0.5)
    curve = CalibrationCurve.from_knots(np.unique(x), np.linspace(0.1, 0.9, len(np.unique(x))))
    bounded = curve.with_max_slope(100)
    assert bounded.max_slope <= 100
    assert bounded([0.4, 0.6]) == pytest.approx([0.1, 0.9], abs=1e-5)
