"""The check on answers: right ones pass, and each way of being wrong has its reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.load.checker import AnswerChecker
from detector import BodyTooLarge, ModelIdentity, Verdict, error_body

LOGIT, RAW = 1.0, 0.7310586


def answer(scored: float = 0.62, **changes: Any) -> bytes:
    """A right verdict by its calibrated probability, with some values changed; `...` takes a key out."""
    verdict = Verdict.from_scores(
        logit=LOGIT,
        raw_prob=RAW,
        calibrated_prob=scored,
        threshold=0.5,
        model=ModelIdentity("detector", "1.0", "resnet18"),
        model_device="cpu",
        request_id="a",
    )
    body = {**verdict.to_dict(), **changes}
    return json.dumps({k: v for k, v in body.items() if v is not ...}).encode()


def test_a_right_answer_passes_again_and_again() -> None:
    checker = AnswerChecker()
    assert [checker.problem("a.jpg", answer()) for _ in range(3)] == [None] * 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prediction": "Real"}, "prediction contradicts"),
        ({"prediction": ...}, "prediction contradicts"),
        ({"threshold": 0.9}, "prediction contradicts"),
        ({"calibrated": float("nan")}, "calibrated is not a finite number"),
        ({"calibrated": ...}, "calibrated is not a finite number"),
        ({"calibrated": True}, "calibrated is not a finite number"),
        ({"logit": "1.0"}, "logit is not a finite number"),
        ({"logit": float("inf")}, "logit is not a finite number"),
        ({"calibrated": 1.01, "percent": 101.0}, "calibrated is outside"),
        ({"raw_prob": -0.1}, "raw_prob is outside"),
        ({"raw_prob": 0.9}, "raw_prob is not the sigmoid"),
        ({"percent": 38.0}, "percent is not"),
        ({"confidence": 0.38}, "confidence is not"),
        ({"confidence": ...}, "confidence is not a finite number"),
        ({"used_calibrator": False}, "used_calibrator"),
        ({"ok": False}, "error without a code"),
        ({"ok": 1}, "error without a code"),
    ],
)
def test_a_tampered_answer_is_a_failure_with_its_reason(changes: dict[str, Any], reason: str) -> None:
    problem = AnswerChecker().problem("a.jpg", answer(**changes))
    assert problem is not None
    assert reason in problem


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_verdict_is_a_failure(body: bytes) -> None:
    assert "not a JSON object" in (AnswerChecker().problem("a.jpg", body) or "")


def test_an_error_is_a_failure_that_names_its_code_over_rest_and_over_grpc() -> None:
    body = json.dumps(error_body(BodyTooLarge("too large"), "a"))
    assert AnswerChecker().problem("a.jpg", body, 413) == "status 413, error body_too_large"
    assert AnswerChecker().problem("a.jpg", body) == "status 413, error body_too_large"


def test_a_right_body_with_a_wrong_status_is_a_failure() -> None:
    assert AnswerChecker().problem("a.jpg", answer(), 503) is not None


def test_one_photo_has_to_get_one_answer() -> None:
    checker = AnswerChecker()
    assert checker.problem("a.jpg", answer()) is None
    assert checker.problem("a.jpg", answer(0.6205)) is None
    assert "a.jpg" in (checker.problem("a.jpg", answer(0.63)) or "")
    assert checker.problem("b.jpg", answer(0.63)) is None


def test_answers_that_are_known_beforehand_are_held_against_the_first_one_too() -> None:
    checker = AnswerChecker({"a.jpg": 0.9, "b.jpg": 0.62})
    assert checker.problem("a.jpg", answer()) is not None
    assert checker.problem("b.jpg", answer()) is None
