"""Two runtimes agree within a bound that grows with the size of their answers, and with nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from detector.tolerance import CURVE, HEATMAP, LOGIT, PROBABILITY, Tolerance, compare, disagreement


@pytest.mark.parametrize(
    ("found", "reference", "agrees"),
    [
        (-16.4158, -16.4157, True),  # 8e-6 of the logit, as two kinds of CPU gave it
        (22.000125, 22.0, True),
        (0.00015, 0.0, False),
        ([160.003, 0.003], [160.0, 0.0], True),  # the small one is a sum of terms as large as the others'
        ([160.003, 1.0], [160.0, 0.0], False),
        ([float("nan")], [1.0], False),
        ([float("nan")], [float("nan")], False),
        ([float("inf")], [float("inf")], False),
    ],
)
def test_logits_agree_in_proportion_to_the_largest(found, reference, agrees):
    assert compare(found, reference, LOGIT).agrees is agrees
    assert (disagreement(found, reference, LOGIT) == "") is agrees


def test_each_photos_map_has_a_scale_of_its_own():
    maps = np.stack([np.full((3, 3), 1000.0), np.full((3, 3), 1.0)])
    moved = maps.copy()
    moved[0, 1, 2] += 0.1
    assert not disagreement(moved, maps, HEATMAP)
    moved[1, 2, 0] += 0.1
    assert disagreement(moved, maps, HEATMAP) == "1.1 against 1 at [1, 2, 0], 0.1 apart (at most 0.000201)"


def test_probabilities_are_bounded_absolutely_and_only_a_curve_takes_nan_for_nan():
    assert not disagreement([0.5009], [0.5], PROBABILITY)
    assert disagreement([0.5011], [0.5], PROBABILITY)
    assert not disagreement([0.5, np.nan], [0.5, np.nan], CURVE)
    assert disagreement([0.5, 0.5], [0.5, np.nan], CURVE)
    assert disagreement([np.nan], [np.nan], PROBABILITY)


def test_the_worst_element_is_named_and_fits_into_json():
    worst = compare([1.0, 2.5, 3.1], [1.0, 2.0, 3.0], Tolerance(atol=0.25))
    assert (worst.index, worst.found, worst.reference, worst.fraction) == ((1,), 2.5, 2.0, 2.0)
    assert json.loads(json.dumps(worst.to_dict())) == {"difference": 0.5, "bound": 0.25, "fraction": 2.0}
    broken = compare([float("nan")], [1.0], LOGIT)
    assert json.loads(json.dumps(broken.to_dict(), allow_nan=False))["fraction"] is None


@pytest.mark.parametrize(("found", "reference"), [([1.0, 2.0], [1.0]), ([[1.0]], [1.0]), ([], [])])
def test_answers_of_other_shapes_are_not_compared(found, reference):
    with pytest.raises(ValueError, match="can't be compared"):
        compare(found, reference, LOGIT)
