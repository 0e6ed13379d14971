"""The verdict: one JSON answer, the same wherever it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from detector.errors import ModelOutputError, UnmaskError

REAL, FAKE = "Real", "Fake"
DEFAULT_THRESHOLD = 0.5  # where neither a run nor a user has chosen one


@dataclass(frozen=True)
class ModelIdentity:
    """Which model answered."""

    name: str
    version: str
    backbone: str

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return {"name": self.name, "version": self.version, "backbone": self.backbone}


@dataclass(frozen=True)
class Verdict:
    """The answer for one photo.

    prediction: `Real` or `Fake`. logit: above zero leans fake. raw_prob: sigmoid of the logit. calibrated: probability of
    fake that the prediction was decided on; it equals `raw_prob` when the calibrator was not used. threshold: the prediction
    is Fake when `calibrated` is at or above it. model_device: `cpu` or `cuda:N`. cropped: share of the photo's area, from 0 to
    1, that the centre crop left out; None where only pixels were given.
    """

    prediction: str
    logit: float
    raw_prob: float
    calibrated: float
    used_calibrator: bool
    threshold: float
    model: ModelIdentity
    model_device: str
    cropped: float | None = None
    request_id: str | None = None

    @classmethod
    def from_scores(
        cls,
        *,
        logit: float,
        raw_prob: float,
        calibrated_prob: float,
        threshold: float,
        model: ModelIdentity,
        model_device: str,
        use_calibrator: bool = True,
        cropped: float | None = None,
        request_id: str | None = None,
    ) -> Verdict:
        """Decide from one photo's outputs of the scoring graph; `Manifest.verdict` fills in threshold and model.

        The prediction is Fake when the probability is at or above `threshold`. Without the calibrator the raw probability
        is both compared and reported. Raises `ModelOutputError` when a score is not finite.
        """
        probability = calibrated_prob if use_calibrator else raw_prob
        if not all(map(math.isfinite, (logit, raw_prob, probability))):
            raise ModelOutputError("the model gave a score that is not a number")
        return cls(
            prediction=FAKE if probability >= threshold else REAL,
            logit=float(logit),
            raw_prob=float(raw_prob),
            calibrated=float(probability),
            used_calibrator=use_calibrator,
            threshold=threshold,
            model=model,
            model_device=model_device,
            cropped=cropped,
            request_id=request_id,
        )

    @property
    def percent(self) -> float:
        """Probability of fake in percent, one decimal, whatever the prediction is."""
        return round(100 * self.calibrated, 1)

    @property
    def confidence(self) -> float:
        """Probability of what the prediction says; below a half only where the threshold is not a half."""
        return self.calibrated if self.prediction == FAKE else 1 - self.calibrated

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON; probabilities to 7 significant digits, all that float32 holds."""
        body: dict[str, Any] = {
            "ok": True,
            "prediction": self.prediction,
            "logit": float(f"{self.logit:.7g}"),
            "raw_prob": float(f"{self.raw_prob:.7g}"),
            "calibrated": float(f"{self.calibrated:.7g}"),
            "percent": self.percent,
            "confidence": float(f"{self.confidence:.7g}"),
            "used_calibrator": self.used_calibrator,
            "threshold": self.threshold,
            "model": self.model.to_dict(),
            "model_device": self.model_device,
        }
        if self.cropped is not None:
            body["cropped"] = round(self.cropped, 3)
        if self.request_id is not None:
            body["request_id"] = self.request_id
        return body


def error_body(error: UnmaskError, request_id: str | None = None) -> dict[str, Any]:
    """The failing form of a verdict: `ok` false, a stable code, a message for the person, the HTTP status."""
    body: dict[str, Any] = {
        "ok": False,
        "error": {"code": error.code, "message": error.message},
        "status": error.status,
    }
    if request_id is not None:
        body["request_id"] = request_id
    return body
