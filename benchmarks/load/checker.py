"""Check every answer under load: a fast wrong answer is a failure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from detector import FAKE, REAL
from detector.tolerance import PROBABILITY, disagreement


class AnswerChecker:
    """Checks answers, also against earlier answers for the same photo.

    known: calibrated probability by photo name, where it is known beforehand; a photo's first answer sets it otherwise.
    """

    def __init__(self, known: Mapping[str, float] | None = None) -> None:
        self.known = dict(known or {})

    def problem(self, photo: str, body: bytes | str, status: int = 200) -> str | None:
        """The problem with an answer, in words that are the same for problems of one kind; None when it is right.

        status: HTTP status; 200 for gRPC, which has none.
        """
        try:
            verdict = json.loads(body)
        except (ValueError, RecursionError):
            verdict = None
        if not isinstance(verdict, dict):
            return f"status {status}, and the body is not a JSON object"
        if status != 200 or verdict.get("ok") is not True:
            error = verdict.get("error")
            code = error.get("code") if isinstance(error, dict) else None
            return f"status {verdict.get('status', status)}, error {code or 'without a code'}"
        return _inconsistency(verdict) or self._difference(photo, verdict["calibrated"])

    def _difference(self, photo: str, calibrated: float) -> str | None:
        expected = self.known.setdefault(photo, calibrated)
        # Most answers are equal to the bit, and the load generator's CPU time counts.
        if calibrated != expected and disagreement(calibrated, expected, PROBABILITY):
            return f"calibrated is not that of {photo}, {expected:.4f}, within {PROBABILITY.atol}"
        return None


def _inconsistency(verdict: Mapping[str, Any]) -> str | None:
    """The first value of a verdict that is out of range or contradicts the others; None when there is none."""
    for name in ("logit", "raw_prob", "calibrated", "percent", "confidence", "threshold"):
        value = verdict.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{name} is not a finite number"
        if name in ("raw_prob", "calibrated", "confidence", "threshold") and not 0 <= value <= 1:
            return f"{name} is outside [0, 1]"
    raw_prob, calibrated = verdict["raw_prob"], verdict["calibrated"]
    if abs(raw_prob - 0.5 * (1 + math.tanh(verdict["logit"] / 2))) > PROBABILITY.atol:
        return "raw_prob is not the sigmoid of logit"
    if verdict.get("used_calibrator") is not True:
        return "used_calibrator is not true"
    if abs(verdict["percent"] - 100 * calibrated) > 0.051:  # one decimal
        return "percent is not 100 x calibrated"
    prediction = FAKE if calibrated >= verdict["threshold"] else REAL
    if verdict.get("prediction") != prediction:
        return "prediction contradicts calibrated and threshold"
    if abs(verdict["confidence"] - (calibrated if prediction == FAKE else 1 - calibrated)) > 1e-6:  # seven digits of each
        return "confidence is not the probability of prediction"
    return None
