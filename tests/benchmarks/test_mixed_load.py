"""The open loop with every kind of request on a real server: over both protocols every answer is the model's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.load.generator import Target
from benchmarks.load.known import Known, known_answers
from benchmarks.load.mix import KINDS, Mix
from benchmarks.load.open_loop import open_loop

MIX = Mix(**dict.fromkeys(KINDS, 1.0))


@pytest.fixture(scope="module")
def known(artifacts: Path) -> Known:
    return known_answers(artifacts / "model.onnx", MIX, None, 8)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_every_kind_of_request_is_answered_as_the_model_says(protocol: str, server, known: Known):
    ports = server.record.ports
    target = Target(f"http://127.0.0.1:{ports['rest_port']}", f"127.0.0.1:{ports['grpc_port']}")
    samples = open_loop(
        *(target, protocol, 20, 3),
        arrivals="poisson",
        mix=MIX,
        known=known.calibrated,
        threshold=known.threshold,
        photo_count=8,
        patience=30,
        strict=False,  # a busy machine makes the generator late, and no answer wrong
    )
    assert Counter(problem for problem in samples.problems if problem) == {}
    assert set(samples.kinds) == set(KINDS)
    assert samples.counts.keys() == ({"OK"} if protocol == "grpc" else {"200", "415", "422"})
    assert samples.verdicts["Real"] > 0
    assert samples.verdicts["Fake"] > 0
