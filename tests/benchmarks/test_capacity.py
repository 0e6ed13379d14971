"""The search for a server's capacity, with a server whose answers follow a formula and with a real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.capacity import find_capacity
from benchmarks.errors import GeneratorSaturated, OverLimit
from benchmarks.load.open_loop import OpenSamples
from unmask.__main__ import main


def samples(rate: float, milliseconds: list[float], problems: list[str]) -> OpenSamples:
    n = len(milliseconds)
    return OpenSamples(
        rate=rate,
        planned=[i / rate for i in range(n)],
        late_ms=[0.1] * n,
        sent_ms=[0.1] * n,
        milliseconds=milliseconds,
        statuses=["503" if problem else "200" for problem in problems],
        kinds=["photo"] * n,
        retry_after=[""] * n,
        problems=problems,
        verdicts={},
        cpu_share=0.1,
        cpu_seconds=1,
        machine_cpu_seconds=1,
    )


def queue(most: float, asked: list[float]) -> Callable[[float], OpenSamples]:
    """A server that takes `most` requests per second: 10 ms each, more as the queue grows, and refusals above."""

    def send(rate: float) -> OpenSamples:
        asked.append(rate)
        busy = rate / most
        waits = [10 / max(1 - busy, 0.01)] * 200
        return samples(rate, waits, ["status 503"] * 20 + [""] * 180 if busy > 1 else [""] * 200)

    return send


def test_the_highest_rate_within_the_limit_is_found_by_bisection():
    asked: list[float] = []
    said: list[str] = []
    found = find_capacity(queue(200, asked), 100, within=0.02, say=said.append)
    # 10 / (1 - rate / 200) <= 100 up to a rate of 180.
    assert 180 / 1.02 <= found.best.rate <= 180 < found.above.rate <= found.best.rate * 1.02
    assert len(found.steps) <= 15
    assert len(said) >= len(found.steps)
    assert f"{found.best.rate:.1f}/s" in " ".join(said)
    assert found.to_dict()["requests_per_second"] == pytest.approx(found.best.rate, abs=0.01)


def test_refusals_are_above_the_capacity_whatever_their_latency():
    found = find_capacity(queue(200, []), 1e6, say=lambda _: None)
    assert found.best.rate <= 200 < found.above.rate
    assert found.above.failures == 20
    assert "20 of 200 failed, most often: status 503" in found.above.too_high


def test_a_rate_that_is_narrowly_too_slow_is_tried_once_more():
    asked: list[float] = []

    def send(rate: float) -> OpenSamples:
        asked.append(rate)
        slow = rate > 100 or (asked.count(rate) % 2 == 1 and rate > 20)
        return samples(rate, [120.0 if slow else 20.0] * 100, [""] * 100)

    assert find_capacity(send, 100, say=lambda _: None).best.rate <= 100
    assert find_capacity(send, 100, say=lambda _: None).best.rate > 90


def test_a_server_that_never_keeps_to_the_limit_is_said():
    with pytest.raises(OverLimit, match=r"even at 0\.625 requests per second: p99 is above 5 ms"):
        find_capacity(queue(200, []), 5, say=lambda _: None)


def test_a_generator_that_is_the_limit_is_no_capacity():
    reach = queue(1e9, [])

    def send(rate: float) -> OpenSamples:
        if rate > 300:
            raise GeneratorSaturated("it used 0.97 of the one CPU that it can use")
        return reach(rate)

    with pytest.raises(GeneratorSaturated, match=r"keeps to the limit at 2\d\d\.\d .* load generator is the limit, .* 0\.97"):
        find_capacity(send, 100, say=lambda _: None)


def test_the_command_asks_a_real_server(server, artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    target = ["--target", f"http://127.0.0.1:{server.record.ports['rest_port']}", "--artifacts", str(artifacts)]
    options = ["--seconds", "0.5", "--arrivals", "constant", "--photo-count", "4"]
    assert main(["bench", "capacity", "--p99", "0.001ms", *target, *options]) == 1
    errors = capsys.readouterr().err
    assert "5.0/s: p50 " in errors  # each step is said
    assert "over_limit" in errors
    assert "failed" not in errors  # every answer was right


@pytest.mark.parametrize("limit", ["100", "0ms", "fast", "-1s"])
def test_a_limit_needs_a_unit(limit: str, capsys: pytest.CaptureFixture[str]):
    assert main(["bench", "capacity", "--target", "http://127.0.0.1:1", f"--p99={limit}"]) == 2
    assert "100ms" in capsys.readouterr().err


def test_steps_are_json():
    found = find_capacity(queue(100, []), 50, say=lambda _: None).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["above"]["too_high"]
    assert found["best"]["too_high"] == ""
