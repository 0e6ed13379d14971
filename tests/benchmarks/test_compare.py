"""A server beside the roofline and its peers: every answer right, every ratio that of the numbers, nothing left behind."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import alternating
from benchmarks.compare import ratios
from benchmarks.peers import PEERS
from benchmarks.serving import why_unavailable
from unmask.__main__ import main

pytestmark = pytest.mark.serve

USERS = (1, 4)


@pytest.fixture(scope="module")
def result(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a short comparison prints."""
    out = tmp_path_factory.mktemp("compare") / "reports" / "compare.json"
    options = ["--users", "1,4", "--seconds", "1", "--warm-up", "1", "--photo-count", "10"]
    options += ["--roofline-seconds", "0.5", "--batch", "8", "--rounds", "1"]
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alternating, "SECONDS", 0.5)
        patch.setattr(alternating, "SATURATED_SECONDS", 1.0)
        assert main(["bench", "compare", "--artifacts", str(artifacts), *options, "--out", str(out)]) == 0
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before
    return json.loads(out.read_text())


def test_every_server_gives_the_local_scorers_answers_under_every_load(result: dict[str, Any]) -> None:
    assert result["ok"] is True
    assert set(result["servers"]) == {"unmask", *PEERS} - set(result["skipped"])
    for server in result["servers"].values():
        assert [run["users"] for run in server["runs"]] == list(USERS)
        for run in server["runs"]:
            assert run["requests"] > 5
            assert run["failures"] == 0, run["failure_reasons"]
            assert run["server_cpu_ms"] > 0
            assert run["load_generator_cpu_ms"] > 0


def test_a_peer_that_is_not_installed_is_named_with_what_it_lacks(result: dict[str, Any]) -> None:
    assert result["skipped"] == {peer: reason for peer in PEERS if (reason := why_unavailable(peer))}


def test_what_keeps_a_peer_from_running_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "here", ("json",))
    monkeypatch.setitem(PEERS, "absent", ("json", "no_such_package"))
    assert why_unavailable("here") is None
    assert (why_unavailable("absent") or "").startswith("not installed: no_such_package (")


def test_the_ratios_are_those_of_the_numbers_beside_them(result: dict[str, Any]) -> None:
    sides = [result["roofline"][when] for when in ("before", "after")]
    most = sum(side["throughput"]["photos_per_second"] for side in sides) / 2
    rate = {
        name: {str(run["users"]): run["requests_per_second"] for run in server["runs"]}
        for name, server in result["servers"].items()
    }
    found = result["ratios"]
    assert set(found["of_roofline"]) == set(rate)
    assert set(found["of_peers"]) == set(rate) - {"unmask"}
    for users in map(str, USERS):
        for name in rate:
            assert math.isfinite(found["of_roofline"][name][users])
            assert found["of_roofline"][name][users] == pytest.approx(rate[name][users] / most, rel=0.01, abs=1e-3)
        for name, ratio in found["of_peers"].items():
            assert ratio[users] == pytest.approx(rate["unmask"][users] / rate[name][users], rel=0.01, abs=1e-3)


def test_one_photo_is_timed_through_the_server_and_without_it(result: dict[str, Any]) -> None:
    single = result["ratios"]["single_photo_ms"]
    assert (single["rounds"], single["failures"]) == (1, 0)
    assert single["roofline"] > 0
    assert single["difference"] == pytest.approx(single["server"] - single["roofline"], abs=0.002)
    assert single["quartiles"] == [single["difference"]] * 2  # of one round


def test_server_and_roofline_are_saturated_alternately(result: dict[str, Any]) -> None:
    found = result["ratios"]["saturated"]
    assert (found["clients"], found["rounds"], found["failures"]) == (max(USERS), 1, 0)
    assert found["ratio"] == pytest.approx(found["server"] / found["roofline"], rel=0.01)
    assert found["quartiles"] == [found["ratio"]] * 2  # of one round
    assert found["roofline"] > 0


def test_a_peer_that_answers_nothing_has_no_ratio() -> None:
    side = {"throughput": {"photos_per_second": 200.0}}
    runs = {
        "unmask": {8: {"requests_per_second": 150.0, "latency_ms": {"p50": 50.0}}},
        "other": {8: {"requests_per_second": 0.0}},
    }
    found = ratios(side, side, runs)
    assert found["of_roofline"] == {"unmask": {"8": 0.75}, "other": {"8": 0.0}}
    assert found["of_peers"] == {"other": {"8": None}}


@pytest.mark.parametrize("options", [["--peers", "flask"], ["--users", "0"], ["--seconds", "x"]])
def test_wrong_usage_is_exit_code_2(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "compare", "--artifacts", str(tmp_path), *options]) == 2
    assert options[0] in capsys.readouterr().err
