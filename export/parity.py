"""The parity gate: the checkpoint, ONNX and TorchScript give one logit, one heatmap and one calibrated probability."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from detector.calibration import CalibrationCurve
from detector.scorer import open_session
from export.errors import ParityError
from export.noise import ONE_ANSWER
from export.onnx_model import extract_curve
from export.runners import Answers, Floats, Pixels, Road

LOGIT_LIMIT = 1e-4
HEATMAP_LIMIT = 1e-4  # of the largest value in that photo's map
CURVE_LIMIT = 1e-6


def compare_roads(roads: Sequence[Road], images: Pixels, curve: CalibrationCurve) -> dict[str, Any]:
    """Largest difference of each road from the first one, in batches of 1 and of 8, and of calibrated answers at all."""
    answers = {(r.name, b): r.answers(images, b, threads=1) for r in roads for b in (1, 8)}
    reference = answers[roads[0].name, 1]
    report: dict[str, Any] = {"photos": len(images), "reference": roads[0].name}
    for name, error in (("logit", _logit_error), ("raw_prob", _raw_error), ("heatmap", _heatmap_error)):
        report[name] = {r.name: float(np.max([error(answers[r.name, b], reference) for b in (1, 8)])) for r in roads}
    calibrated = np.stack([curve(a.raw_prob) for a in answers.values()]).astype(np.float64)
    report["calibrated_spread"] = float(np.ptp(calibrated, axis=0).max())
    return report


def compare_reduced(road: Road, model: Path, images: Pixels, curve: CalibrationCurve) -> dict[str, Any]:
    """What a model of fewer bits is held to: its curve as in `compare_curve`, and one photo's answers in batches of 1 and 8.

    Those may differ by more than float32's, where noise decides a rounding; the report's `calibrated_spread` says by how much.
    Raises `ParityError` when the curve is not the manifest's.
    """
    found = compare_roads([road], images, curve)
    report = {"calibrated_spread": found["calibrated_spread"], "curve": compare_curve(model, curve, images)}
    if not report["curve"]["error"] <= CURVE_LIMIT:
        raise ParityError(f"{model.name}: curve: {report['curve']['error']:.3g} (at most {CURVE_LIMIT:g})")
    return report


def compare_curve(model: Path, curve: CalibrationCurve, images: Pixels) -> dict[str, Any]:
    """Largest difference between the curve in a written ONNX model and `curve`, for the same raw probability in.

    In the whole graph, for the raw probabilities of `images`; and cut out of it, at every knot and one float32 to either
    side, at 0, 1 and NaN. There all in one batch and one by one: runtimes take another path for the rest of a vector.
    """
    raw_prob, calibrated = open_session(model, threads=1).run(["raw_prob", "calibrated_prob"], {"images": images})
    alone = open_session(extract_curve(model).SerializeToString(), threads=1)
    p = curve_points(curve)
    want = curve(p)
    together = alone.run(None, {"raw_prob": p})[0]
    singly = np.concatenate([alone.run(None, {"raw_prob": p[i : i + 1]})[0] for i in range(len(p))])
    errors = (_nan_error(calibrated, curve(raw_prob)), _nan_error(together, want), _nan_error(singly, want))
    return {"points": len(p), "error": max(errors)}


def curve_points(curve: CalibrationCurve) -> Floats:
    """Where a wrong curve shows: every knot, one unit in the last place either side, the ends, and not a number."""
    sides = [np.nextafter(curve.x, np.float32(d), dtype=np.float32) for d in (-1, 2)]
    return np.concatenate([curve.x, *sides, np.array([0, 1, np.nan], np.float32)]).astype(np.float32)


def require(report: dict[str, Any]) -> None:
    """Raise `ParityError` naming every limit that a report of both comparisons is over."""
    found = [(f"logit, {road}", value, LOGIT_LIMIT) for road, value in report["logit"].items()]
    found += [(f"heatmap, {road}", value, HEATMAP_LIMIT) for road, value in report["heatmap"].items()]
    found += [("curve", report["curve"]["error"], CURVE_LIMIT)]
    found += [("calibrated between batches and roads", report["calibrated_spread"], ONE_ANSWER)]
    over = [f"{what}: {value:.3g} (at most {limit:g})" for what, value, limit in found if not value <= limit]
    if over:
        raise ParityError("the roads disagree; " + "; ".join(over))


def _logit_error(answers: Answers, reference: Answers) -> float:
    return float(np.abs(answers.logit - reference.logit).max())


def _raw_error(answers: Answers, reference: Answers) -> float:
    return float(np.abs(answers.raw_prob - reference.raw_prob).max())


def _heatmap_error(answers: Answers, reference: Answers) -> float:
    scale = np.abs(reference.heatmap).max(axis=(1, 2), keepdims=True)
    return float((np.abs(answers.heatmap - reference.heatmap) / np.maximum(scale, 1e-12)).max())


def _nan_error(found: Floats, want: Floats) -> float:
    """Largest difference; 1, as wrong as a probability can be, when one is NaN where the other is not."""
    if (np.isnan(found) != np.isnan(want)).any():
        return 1.0
    return float(np.nanmax(np.abs(found - want)))
