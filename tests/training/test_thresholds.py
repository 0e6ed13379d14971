"""The threshold for a rate of false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from training.calibration.thresholds import threshold_for_fpr


@pytest.mark.parametrize("target", [0.005, 0.01, 0.05, 0.2])
def test_no_more_than_the_rate_is_flagged_and_one_more_would_be_too_many(target: float) -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.random(800).astype(np.float32), np.repeat([0, 1], 400)
    choice = threshold_for_fpr(p, labels, target)
    flagged = (p[labels == 0] >= choice["threshold"]).sum()
    assert flagged == choice["flagged_real"] == round(400 * target)
    assert choice["fpr"] == flagged / 400 <= target


def test_a_plateau_is_left_out_whole() -> None:
    p = np.repeat([0.1, 0.6, 0.9], [80, 15, 5]).astype(np.float32)
    choice = threshold_for_fpr(np.concatenate([p, p]), np.repeat([0, 1], 100), 0.1)
    assert 0.6 < choice["threshold"] < 0.9
    assert choice["flagged_real"] == 5
    highest = threshold_for_fpr(np.concatenate([p, p]), np.repeat([0, 1], 100), 0.01)
    assert 0.9 < highest["threshold"] < 1
    assert "no fake photo is found" in " ".join(highest["notes"])


def test_what_so_many_photos_can_tell_is_said() -> None:
    choice = threshold_for_fpr(np.linspace(0, 0.9, 100), np.repeat([0, 1], 50), 0.01)
    assert "50 real photos can't tell a rate of 1.00%, since one of them is 2.00%" in " ".join(choice["notes"])
    assert binom.cdf(choice["flagged_real"], 50, choice["fpr_upper_95"]) == pytest.approx(0.05)
