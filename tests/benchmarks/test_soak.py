"""The soak: what a server's processes hold is followed, and growth is told from noise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.soak import ResourceUsage
from unmask.__main__ import main


@pytest.mark.serve
def test_a_real_server_is_followed_process_by_process(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "SAMPLE_SECONDS", 0.5)
    out = tmp_path / "soak.json"
    code = main(
        ["bench", "soak", "--artifacts", str(artifacts), "--users", "2", "--seconds", "6", "--workers", "1", "--out", str(out)]
    )
    found = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == found
    assert found["requests"] > 20
    assert found["failures"] == 0
    assert set(found["held"]) == {"supervisor", "jvm", "workers"}
    for held in found["held"].values():
        assert held["processes"] == 1
        assert all(20 < value < 4000 for value in held["mebibytes"])
        assert all(value > 3 for value in held["descriptors"])
    # Six seconds after its start a server may well still grow; the verdict is that of the numbers, and so is the exit code.
    steady = all(
        held["memory_growth_in_ten_minutes"] < 0.01 and held["descriptor_growth_in_ten_minutes"] < 1
        for held in found["held"].values()
    )
    assert (code == 0) == found["ok"] == steady


@pytest.mark.parametrize(
    ("a_minute", "descriptors_a_minute", "steady"), [(0, 0, True), (0.0005, 0, True), (0.002, 0, False), (0, 1, False)]
)
def test_growth_is_that_of_ten_minutes_after_the_start(a_minute: float, descriptors_a_minute: int, steady: bool) -> None:
    usage = ResourceUsage()
    for minute in range(31):
        settling = max(0, 5 - minute) * 10_000_000  # given back as it settles
        usage.seconds.append(60.0 * minute)
        usage.memory.append(int(500e6 * (1 + a_minute * minute)) + settling + (minute % 2) * 100_000)
        usage.descriptors.append(100 + descriptors_a_minute * minute)
    found = usage.to_dict()
    assert found["memory_growth_in_ten_minutes"] == pytest.approx(10 * a_minute, abs=1e-3)
    assert found["descriptor_growth_in_ten_minutes"] == pytest.approx(10 * descriptors_a_minute, abs=0.01)
    assert soak.is_steady(found) is steady


def test_a_soak_too_short_to_tell_is_refused(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "soak", "--artifacts", str(artifacts), "--seconds", "20"]) == 2
    assert "50 seconds at the least" in capsys.readouterr().err
