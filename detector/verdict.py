"""The verdict: one JSON answer, the same wherever it is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detector.errors import FileError, ModelOutputError, UnmaskError

REAL, FAKE = "Real", "Fake"  # the two classes
UNCERTAIN = "Uncertain"  # the prediction of a model with a band, for a photo in it
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
class Band:
    """Calibrated probabilities that are called neither Real nor Fake: from `lower` on and below `upper`.

    Both lie above 0 and below 1. Where they are equal the band is empty: one threshold keeps the error rates that it was
    chosen for. Raises `FileError` for what is no band.
    """

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not 0 < self.lower <= self.upper < 1:
            raise FileError(f"the band is {self.lower} to {self.upper}; it must lie between 0 and 1, the lower end first")

    @classmethod
    def from_list(cls, values: Sequence[float] | None) -> Band | None:
        """The band that `to_list` gave; None for none. Raises `FileError`, or `TypeError` or `ValueError` for other values."""
        if values is None:
            return None
        lower, upper = map(float, values)
        return cls(lower, upper)

    def __contains__(self, probability: float) -> bool:
        return self.lower <= probability < self.upper

    def to_list(self) -> list[float]:
        """Plain values for JSON: [lower, upper]."""
        return [self.lower, self.upper]


@dataclass(frozen=True)
class Verdict:
    """The answer for one photo.

    prediction: `Real`, `Fake`, or `Uncertain` where the model has a band and `calibrated` lies in it. logit: above zero leans
    fake. raw_prob: sigmoid of the logit. calibrated: probability of fake that the prediction was decided on; it equals
    `raw_prob` when the calibrator was not used. threshold: the prediction is Fake when `calibrated` is at or above it; with a
    band, when it is at or above the upper end. model_device: `cpu` or `cuda:N`. cropped: share of the photo's area, from 0 to
    1, that the centre crop left out; None where only pixels were given. uncertain: the band that was decided with.
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
    uncertain: Band | None = None

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
        band: Band | None = None,
    ) -> Verdict:
        """Decide from one photo's outputs of the scoring graph; `Manifest.verdict` fills in threshold, band and model.

        The prediction is Fake when the probability is at or above `threshold`. Without the calibrator the raw probability
        is both compared and reported, and the band, which is one of calibrated probabilities, is left out.
        Raises `ModelOutputError` when a score is not finite.
        """
        probability = calibrated_prob if use_calibrator else raw_prob
        if not all(map(math.isfinite, (logit, raw_prob, probability))):
            raise ModelOutputError("the model gave a score that is not a number")
        decided = band if use_calibrator else None
        return cls(
            prediction=predicted(probability, threshold, decided),
            logit=float(logit),
            raw_prob=float(raw_prob),
            calibrated=float(probability),
            used_calibrator=use_calibrator,
            threshold=threshold,
            model=model,
            model_device=model_device,
            cropped=cropped,
            request_id=request_id,
            uncertain=decided,
        )

    @property
    def percent(self) -> float:
        """Probability of fake in percent, one decimal, whatever the prediction is."""
        return round(100 * self.calibrated, 1)

    @property
    def confidence(self) -> float:
        """Probability of what the prediction says, below a half only where the threshold is not a half; of an Uncertain one,
        that of the likelier class."""
        if self.prediction == UNCERTAIN:
            return max(self.calibrated, 1 - self.calibrated)
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
            **({"uncertain": self.uncertain.to_list()} if self.uncertain else {}),
            "model": self.model.to_dict(),
            "model_device": self.model_device,
        }
        if self.cropped is not None:
            body["cropped"] = round(self.cropped, 3)
        if self.request_id is not None:
            body["request_id"] = self.request_id
        return body


def predicted(probability: float, threshold: float, band: Band | None = None) -> str:
    """What a photo with this probability is called."""
    if band is not None and probability in band:
        return UNCERTAIN
    return FAKE if probability >= (band.upper if band is not None else threshold) else REAL


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
