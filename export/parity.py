"""The parity gate: the checkpoint, ONNX and TorchScript give one logit, one heatmap and one calibrated probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.calibration import CalibrationCurve
from detector.scorer import open_session, run_graph
from detector.tolerance import CURVE, HEATMAP, LOGIT, PROBABILITY, Difference, compare
from export.errors import ParityError
from export.onnx_model import extract_curve
from export.runners import Floats, Pixels, Runner

BATCHES = (1, 8)
_TOLERANCES = {"logit": LOGIT, "raw_prob": PROBABILITY, "heatmap": HEATMAP, "calibrated": PROBABILITY, "curve": CURVE}


@dataclass(frozen=True)
class Parity:
    """What was measured on `photos` pictures.

    logit, raw_prob, heatmap: for each runner by name, the worst difference from the runner called `reference` in batches of 1.
    calibrated: the worst difference between any two calibrated answers for one picture, over all runners and batch sizes.
    curve: as `compare_curve` has it, of the worst model; None where no model was given.
    """

    photos: int
    reference: str
    logit: dict[str, Difference]
    raw_prob: dict[str, Difference]
    heatmap: dict[str, Difference]
    calibrated: Difference
    curve: Difference | None
    curve_points: int

    def differences(self) -> dict[str, Difference]:
        """All of them, by what was compared: "logit, onnx" and so on."""
        found = {
            f"{name}, {runner}": difference
            for name in ("logit", "raw_prob", "heatmap")
            for runner, difference in getattr(self, name).items()
        }
        found["calibrated between batches and runtimes"] = self.calibrated
        return found | ({"curve": self.curve} if self.curve is not None else {})

    def require(self) -> None:
        """Raise `ParityError` naming every difference that is over its bound."""
        over = [f"{what}: {difference}" for what, difference in self.differences().items() if not difference.agrees]
        if over:
            raise ParityError("the runtimes disagree; " + "; ".join(over))

    def to_dict(self) -> dict[str, Any]:
        """As the manifest has it: each difference with its bound, and the tolerances that the bounds come from."""
        report: dict[str, Any] = {
            "photos": self.photos,
            "reference": self.reference,
            "tolerance": {name: tolerance.to_dict() for name, tolerance in _TOLERANCES.items()},
        }
        for name in ("logit", "raw_prob", "heatmap"):
            report[name] = {runner: difference.to_dict() for runner, difference in getattr(self, name).items()}
        report["calibrated"] = self.calibrated.to_dict()
        if self.curve is not None:
            report["curve"] = {"points": self.curve_points, **self.curve.to_dict()}
        return report


def measure_parity(runners: Sequence[Runner], images: Pixels, curve: CalibrationCurve, models: Sequence[Path] = ()) -> Parity:
    """Compare each runner with the first one on uint8[N, H, W, 3], and the curves inside the ONNX `models` with `curve`."""
    answers = {(r.name, b): r.answers(images, b, threads=1) for r in runners for b in BATCHES}
    reference = answers[runners[0].name, BATCHES[0]]

    def worst(name: str, runner: str) -> Difference:
        found = [compare(getattr(answers[runner, b], name), getattr(reference, name), _TOLERANCES[name]) for b in BATCHES]
        return max(found, key=lambda difference: difference.fraction)

    calibrated = np.stack([curve(a.raw_prob) for a in answers.values()])
    curves = [compare_curve(model, curve, images) for model in models]
    return Parity(
        photos=len(images),
        reference=runners[0].name,
        **{name: {r.name: worst(name, r.name) for r in runners} for name in ("logit", "raw_prob", "heatmap")},
        calibrated=compare(calibrated.max(axis=0), calibrated.min(axis=0), PROBABILITY),
        curve=max(curves, key=lambda difference: difference.fraction, default=None),
        curve_points=len(curve_points(curve)),
    )


def compare_reduced(runner: Runner, model: Path, images: Pixels, curve: CalibrationCurve) -> dict[str, Any]:
    """What a model of fewer bits is held to: its curve as in `compare_curve`, and one photo's answers in batches of 1 and 8.

    Those may differ by more than float32's, where noise decides a rounding; "calibrated" in the report says by how much.
    Raises `ParityError` when the curve is not the manifest's.
    """
    found = compare_curve(model, curve, images)
    if not found.agrees:
        raise ParityError(f"{model.name}: curve: {found}")
    calibrated = measure_parity([runner], images, curve).calibrated
    return {"calibrated": calibrated.to_dict(), "curve": {"points": len(curve_points(curve)), **found.to_dict()}}


def compare_curve(model: Path, curve: CalibrationCurve, images: Pixels) -> Difference:
    """The worst difference between the curve in a written ONNX model and `curve`, for the same raw probability in.

    In the whole graph, for the raw probabilities of `images`; and cut out of it, at every point of `curve_points`, once all
    in one batch and once one by one: runtimes take another path for the rest of a vector.
    """
    raw_prob, calibrated = run_graph(open_session(model, threads=1), images, ["raw_prob", "calibrated_prob"])
    alone = open_session(extract_curve(model).SerializeToString(), threads=1)
    p = curve_points(curve)
    together = alone.run(None, {"raw_prob": p})[0]
    singly = np.concatenate([alone.run(None, {"raw_prob": p[i : i + 1]})[0] for i in range(len(p))])
    found = np.concatenate([calibrated, together, singly])
    return compare(found, np.concatenate([curve(raw_prob), curve(p), curve(p)]), CURVE)


def curve_points(curve: CalibrationCurve) -> Floats:
    """Where a wrong curve shows, float32[3 * knots + 3]: each knot, one unit in the last place beside it, 0, 1 and NaN."""
    sides = [np.nextafter(curve.x, np.float32(d), dtype=np.float32) for d in (-1, 2)]
    return np.concatenate([curve.x, *sides, np.array([0, 1, np.nan], np.float32)]).astype(np.float32)
