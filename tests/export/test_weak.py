"""A run whose numbers speak against it: its artifacts say so, and `--require-auc` refuses it before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detector import Manifest
from tests.conftest import write_json, write_run
from unmask.__main__ import main

pytestmark = pytest.mark.slow

VALIDATION = {
    "auc": {"value": 0.527, "low": 0.470, "high": 0.584},
    "spread": {"low": 0.51, "high": 0.53, "lowest": 0.5, "highest": 0.54},
}
CODES = ["auc_at_chance", "flat_probabilities", "one_verdict"]


@pytest.fixture(scope="module")
def weak(photos: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run no better than a coin, which gives every photo nearly the same probability."""
    run = tmp_path_factory.mktemp("weak") / "run"
    write_run(run, "test_resnet", photos, size=32)
    write_json(run / "metrics.json", {"validation": VALIDATION, "threshold": 0.5})
    return run


def test_its_artifacts_say_so_and_follow_the_threshold(weak: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "artifacts"
    assert main(["export", "--run", str(weak), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    manifest = Manifest.load(out / "manifest.json")
    assert [warning["code"] for warning in manifest.warnings] == CODES
    for warning in manifest.warnings:
        assert f"warning: {warning['message']} [{warning['code']}]" in said
    assert "it calls every validation photo Fake" in said
    assert main(["recalibrate", str(out), "--run", str(weak), "--threshold", "0.52", "--json"]) == 0
    assert [warning["code"] for warning in json.loads(capsys.readouterr().out)["warnings"]] == CODES[:2]
    assert len(Manifest.load(out / "manifest.json").warnings) == 2


def test_an_auc_that_may_be_lower_than_required_is_refused_with_its_interval(
    weak: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "artifacts"
    export = ["export", "--run", str(weak), "--out", str(out)]
    assert main([*export, "--require-auc", "0.5"]) == 1  # the value is above, and the lower end is not
    said = capsys.readouterr().err
    assert "AUC is 0.527 on its validation photos, 95 % between 0.470 and 0.584" in said
    assert "[auc_too_low]" in said
    assert not out.exists()
    assert main([*export, "--require-auc", "0.4", "--checkpoint", "final"]) != 0
    write_json(tmp_path / "metrics.json", {})
    (tmp_path / "best_model.pth").write_bytes((weak / "best_model.pth").read_bytes())
    assert main(["export", "--run", str(tmp_path), "--out", str(out), "--require-auc", "0.4"]) == 1
    assert "says no AUC" in capsys.readouterr().err
    assert not out.exists()
