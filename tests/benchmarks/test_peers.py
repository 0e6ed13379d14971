"""Servers beside each other: every answer right, the table that of the numbers, nothing left behind."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest

from benchmarks.peers import PEERS, Peer, comparison, starting
from benchmarks.peers.comparison import LoadOfServer, markdown, table
from benchmarks.report.samples import read_samples
from tests.conftest import ROOT
from unmask.__main__ import main

CLIENTS, ROUNDS = (3,), 2
PLAIN = Peer("A plain server", "pillow", ("python", "-m", "tests.benchmarks.plain_peer", "{port}"), "a thread for each client")
BROKEN = Peer("A broken server", "pillow", ("python", "-c", "raise SystemExit('it has no model')"), "not at all")


def environment(folder: Path, name: str) -> None:
    """An environment whose Python is this one."""
    python = folder / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (folder / name / starting.INSTALLED).touch()


@pytest.fixture(scope="module")
def out(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short comparison with a server that works, one that does not start and one that is not installed writes."""
    folder, environments = tmp_path_factory.mktemp("peers") / "reports", tmp_path_factory.mktemp("environments")
    environment(environments, "plain")
    environment(environments, "broken")
    options = ["--clients", "3", "--seconds", "1", "--warm-up", "1", "--photo-count", "10", "--rounds", str(ROUNDS)]
    options += ["--roofline-seconds", "0.5", "--peers", "plain,broken,ray", "--workers", "1"]
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "ENVIRONMENTS", environments)
        patch.setattr(comparison, "BATCHES", (8,))
        patch.setitem(PEERS, "plain", PLAIN)
        patch.setitem(PEERS, "broken", BROKEN)
        assert main(["bench", "peers", "--artifacts", str(artifacts), *options, "--out", str(folder)]) == 0
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before
    return folder


@pytest.fixture(scope="module")
def result(out: Path) -> dict[str, Any]:
    return json.loads((out / "peers.json").read_text())


@pytest.mark.serve
def test_every_server_gives_the_local_scorers_answers_under_every_load(result: dict[str, Any]) -> None:
    assert result["ok"] is True
    assert set(result["servers"]) == {"unmask", "plain"}
    assert result["servers"]["plain"]["how"] == PLAIN.how
    expected = {(name, n, number) for name in ("unmask", "plain") for n in CLIENTS for number in range(ROUNDS)}
    assert {(load["server"], load["clients"], load["round"]) for load in result["loads"]} == expected
    for load in result["loads"]:
        assert load["requests"] > 5
        assert load["failures"] == 0, load["failure_reasons"]
        assert load["server_cpu_ms"] > 0


@pytest.mark.serve
def test_a_peer_that_cannot_run_is_a_row_with_its_reason(result: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(result["skipped"]) == {"broken", "ray"}
    assert "it has no model" in result["skipped"]["broken"]
    assert "make peers" in result["skipped"]["ray"]
    monkeypatch.setitem(PEERS, "broken", BROKEN)
    rows = markdown(result).splitlines()
    assert len(rows) == 2 + 4
    assert len({row.count("|") for row in rows}) == 1
    assert sum("not measured" in row for row in rows) == 2


@pytest.mark.serve
def test_the_samples_of_every_load_lie_beside_the_table(out: Path, result: dict[str, Any]) -> None:
    samples = read_samples(out)
    assert samples.about["machine"] == result["machine"]["label"]
    assert len(samples.runs) == len(result["loads"])
    assert sum(len(run.started) for run in samples.runs) == sum(load["requests"] for load in result["loads"])
    assert [len(samples.named(name)) for name in ("unmask, 3 clients", "plain, 3 clients")] == [ROUNDS, ROUNDS]


@pytest.mark.serve
def test_the_rows_are_medians_of_the_rounds(result: dict[str, Any]) -> None:
    for row in result["table"]:
        rates = [
            load["requests_per_second"]
            for load in result["loads"]
            if (load["server"], load["clients"]) == (row["server"], row["clients"])
        ]
        assert row["by_round"] == rates
        assert row["requests_per_second"] == pytest.approx(median(rates), abs=1e-3)


def test_a_share_is_of_the_rooflines_around_its_round() -> None:
    def load(server: str, number: int, rate: float) -> LoadOfServer:
        numbers = {"requests_per_second": rate, "latency_ms": {"p50": 5.0, "p99": 9.0}, "server_cpu_ms": 4.0, "failures": 0}
        return LoadOfServer(server, 8, number, numbers, {})

    loads = [load("unmask", 0, 90.0), load("unmask", 1, 75.0), load("dead", 0, 0.0)]
    found = table(loads, [90.0, 110.0, 190.0])
    assert [row["of_roofline"] for row in found] == [pytest.approx((0.9 + 0.5) / 2), 0.0]
    assert found[0]["p50"] == 5.0


def test_each_peer_has_an_app_and_locked_requirements() -> None:
    for name in PEERS:
        assert (ROOT / "benchmarks" / "peers" / f"{name}_app.py").is_file()
        lock = (ROOT / "requirements" / f"peers-{name}.lock").read_text()
        assert f"\n{PEERS[name].package}" in lock
        assert "--hash=sha256:" in lock


@pytest.mark.parametrize("options", [["--peers", "flask"], ["--clients", "0"], ["--seconds", "x"]])
def test_wrong_usage_is_exit_code_2(options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "peers", "--artifacts", str(tmp_path), *options]) == 2
    assert options[0] in capsys.readouterr().err
