"""Check every answer under load: a fast wrong answer is a failure."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detector import FAKE, UNCERTAIN, Band, FileError
from detector.tolerance import PROBABILITY, disagreement
from detector.verdict import predicted


@dataclass(frozen=True)
class Refusal:
    """How a photo that can't be scored is refused: status and code in its place of the answer."""

    status: int
    code: str


@dataclass(frozen=True)
class Expected:
    """The right answer to a request. items: for each photo its name, or its refusal. several: the answer is a list of
    verdicts. explain: verdicts have a heatmap."""

    items: tuple[str | Refusal, ...]
    several: bool = False
    explain: bool = False

    @property
    def status(self) -> int:
        """The HTTP status: 200 when any photo has a verdict, otherwise that of the first refusal."""
        first = self.items[0]
        return first.status if isinstance(first, Refusal) and all(isinstance(i, Refusal) for i in self.items) else 200


class AnswerChecker:
    """Checks answers, also against earlier answers for the same photo.

    known: calibrated probability by photo name, where it is known beforehand; a photo's first answer sets it otherwise.
    verdicts: how many right answers said which label.
    """

    def __init__(self, known: Mapping[str, float] | None = None) -> None:
        self.known = dict(known or {})
        self.verdicts: Counter[str] = Counter()

    def problem(self, expected: str | Expected, body: bytes | str, status: int | None = 200) -> str | None:
        """The problem with an answer, in words that are the same for problems of one kind; None when it is right.

        expected: of one photo that has a verdict its name is enough. status: HTTP status; None for gRPC, which has none.
        """
        expected = Expected((expected,)) if isinstance(expected, str) else expected
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            return f"status {status or 200}, and the body is not a JSON object"
        verdicts = document.get("predictions") if expected.several else [document]
        if not isinstance(verdicts, list):
            return _refused(document, status)
        if len(verdicts) != len(expected.items):
            return f"{len(verdicts)} verdicts for {len(expected.items)} photos"
        for item, verdict in zip(expected.items, verdicts, strict=True):
            if problem := self._item(item, verdict, status if not expected.several else None, explain=expected.explain):
                return problem
        if status not in (None, expected.status):
            return f"status {status} where {expected.status} is right"
        return None

    def _item(self, item: str | Refusal, verdict: Any, status: int | None, *, explain: bool) -> str | None:
        if not isinstance(verdict, dict):
            return "a verdict is not a JSON object"
        if isinstance(item, Refusal):
            error = verdict.get("error")
            found = (verdict.get("status"), error.get("code") if isinstance(error, dict) else None)
            right = verdict.get("ok") is False and found == (item.status, item.code)
            return None if right else f"{_refused(verdict, status)} where {item.status}, {item.code} is right"
        if status not in (None, 200) or verdict.get("ok") is not True:
            return _refused(verdict, status)
        problem = _inconsistency(verdict) or self._difference(item, verdict["calibrated"])
        if not problem and explain and not _is_map(verdict.get("explanation")):
            problem = "the explanation has no heatmap of finite numbers, or no overlay"
        if not problem:
            self.verdicts[verdict["prediction"]] += 1
        return problem

    def _difference(self, photo: str, calibrated: float) -> str | None:
        expected = self.known.setdefault(photo, calibrated)
        # Most answers are equal to the bit, and the load generator's CPU time counts.
        if calibrated != expected and disagreement(calibrated, expected, PROBABILITY):
            return f"calibrated is not that of {photo}, {expected:.4f}, within {PROBABILITY.atol}"
        return None


def _refused(verdict: Mapping[str, Any], status: int | None) -> str:
    if verdict.get("ok") is True and status in (None, 200):
        return "a verdict"
    error = verdict.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return f"status {verdict.get('status', status)}, error {code or 'without a code'}"


def _is_map(explanation: Any) -> bool:
    if not isinstance(explanation, dict) or not isinstance(explanation.get("overlay_png"), str):
        return False
    rows = explanation.get("heatmap")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        return False
    values = [value for row in rows for value in row]
    return bool(explanation["overlay_png"]) and all(isinstance(v, int | float) and math.isfinite(v) for v in values)


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
    return _contradiction(verdict)


def _contradiction(verdict: Mapping[str, Any]) -> str | None:
    """What in a verdict is not what its probability and its band make it; None when nothing is."""
    calibrated = verdict["calibrated"]
    try:
        band = Band.from_list(verdict.get("uncertain"))
    except (TypeError, ValueError, FileError):
        return "uncertain is not a band in [0, 1]"
    prediction = predicted(calibrated, verdict["threshold"], band)
    if verdict.get("prediction") != prediction:
        return "prediction contradicts calibrated, threshold and uncertain"
    likelier = max(calibrated, 1 - calibrated)
    right = likelier if prediction == UNCERTAIN else calibrated if prediction == FAKE else 1 - calibrated
    if abs(verdict["confidence"] - right) > 1e-6:  # seven digits of each
        return "confidence is not the probability of prediction"
    return None
