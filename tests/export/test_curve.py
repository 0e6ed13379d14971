"""The curve as torch and as ONNX gives what `detector.CalibrationCurve` gives, for the same raw probability in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector import CalibrationCurve, Manifest
from detector.scorer import open_session
from detector.tolerance import CURVE, disagreement
from export.curve import Curve
from export.onnx_model import curve_to_onnx, extract_curve
from export.parity import compare_curve, curve_points
from tests.conftest import steep_curve
from tests.export.test_slope import steep_curves

CURVES = {
    "two knots": CalibrationCurve.identity(),
    "a constant": CalibrationCurve(np.array([0.25, 0.75]), np.array([0.4, 0.4])),
    "float-wide steps": CalibrationCurve.from_knots(*steep_curve()),
    "a thousand knots": CalibrationCurve.from_knots(
        np.sort(np.random.default_rng(1).random(1000)), np.sort(np.random.default_rng(2).random(1000))
    ),
}


@settings(max_examples=200, deadline=None)
@given(steep_curves(), st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_torch_gives_what_numpy_gives(curve, raw):
    p = np.concatenate([np.array(raw, np.float32), curve_points(curve)])
    assert not disagreement(Curve(curve)(torch.from_numpy(p)), curve(p), CURVE)


@pytest.mark.parametrize("name", CURVES)
def test_onnx_gives_what_numpy_gives_at_every_knot_beside_it_and_at_the_ends(name):
    curve = CURVES[name]
    session = open_session(curve_to_onnx(curve, 18).SerializeToString())
    p = curve_points(curve)
    found = session.run(None, {"raw_prob": p})[0]
    assert not disagreement(found, curve(p), CURVE)
    assert np.isnan(found).sum() == np.isnan(p).sum() == 1


def test_nan_stays_nan_wherever_it_is_in_a_vector(artifacts):
    """Vectorised clips may drop a NaN in full lanes and keep it in the rest."""
    session = open_session(extract_curve(artifacts / "model.onnx").SerializeToString())
    for n, at in [(size, place) for size in (1, 3, 8, 17) for place in range(size)]:
        p = np.full(n, 0.5, np.float32)
        p[at] = np.nan
        assert np.isnan(session.run(None, {"raw_prob": p})[0]).tolist() == [i == at for i in range(n)]


def test_the_comparison_tells_the_shipped_curve_from_one_knot_off(artifacts):
    shipped = Manifest.load(artifacts / "manifest.json").curve
    images = np.zeros((1, 128, 128, 3), np.uint8)
    y = shipped.y.copy()
    top = int(np.argmax(np.diff(y))) + 1
    y[top] = (y[top - 1] + 3 * y[top]) / 4
    assert compare_curve(artifacts / "model.onnx", shipped, images).agrees
    assert compare_curve(artifacts / "model.onnx", CalibrationCurve(shipped.x, y), images).difference > 1e-4
