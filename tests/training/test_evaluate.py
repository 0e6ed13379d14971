"""`python -m training evaluate`: a checkpoint and its export are judged alike, on any labelled folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from training.__main__ import main


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_gives_a_run_the_numbers_of_its_own_report(tiny_run: Path, tiny_set: Path, capsys):
    result = evaluate(capsys, "--checkpoint", tiny_run / "best_model.pth", "--data", tiny_set)
    reported = json.loads((tiny_run / "metrics.json").read_text())["validation"]
    assert result["counts"] == {"real": 30, "fake": 30}
    for name in ("auc", "accuracy", "brier", "brier_raw", "ece"):
        assert result["validation"][name]["value"] == pytest.approx(reported[name]["value"], abs=1e-4)


def test_the_final_checkpoint_is_judged_without_the_curve_that_was_fitted_to_the_best(tiny_run: Path, tiny_set: Path, capsys):
    judged = evaluate(capsys, "--checkpoint", tiny_run / "final_model.pth", "--data", tiny_set)["validation"]
    assert judged["brier"] == judged["brier_raw"]


def test_an_export_is_judged_like_its_checkpoint(run_dir: Path, artifacts: Path, tiny_set: Path, capsys):
    exported = evaluate(capsys, "--model", artifacts / "model.onnx", "--data", tiny_set, "--part", "all")
    checkpoint = evaluate(capsys, "--checkpoint", run_dir / "best_model.pth", "--data", tiny_set, "--part", "all")
    assert exported["counts"] == checkpoint["counts"] == {"real": 90, "fake": 90}
    assert exported["fingerprint"] == checkpoint["fingerprint"]
    for name in ("auc", "brier_raw"):
        assert exported["validation"][name]["value"] == pytest.approx(checkpoint["validation"][name]["value"], abs=1e-3)


def test_an_undivided_folder_is_taken_whole_and_a_broken_file_is_told(tiny_run: Path, tiny_set: Path, tmp_path: Path, capsys):
    shutil.copytree(tiny_set / "Validation", tmp_path / "flat")
    (tmp_path / "flat" / "Real" / "broken.jpg").write_text("no photo")
    arguments = ["--checkpoint", tiny_run / "best_model.pth", "--data", tmp_path / "flat", "--out", tmp_path / "out"]
    result = evaluate(capsys, *arguments, "--threshold", "0.4")
    assert result["part"] == "all"
    assert result["validation"]["threshold"] == 0.4
    assert list(result["unreadable"]) == ["Real/broken.jpg"]
    page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Evaluation: test_resnet on flat" in page
    assert "broken.jpg" in page
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result


def test_what_can_not_be_judged_is_refused_in_a_line(tiny_run: Path, tiny_set: Path, tmp_path: Path, capsys):
    checkpoint = ["--checkpoint", str(tiny_run / "best_model.pth")]
    assert main(["evaluate", *checkpoint, "--data", str(tmp_path)]) == 2
    assert main(["evaluate", *checkpoint, "--data", str(tiny_set), "--threshold", "2"]) == 2
    assert main(["evaluate", "--model", str(tmp_path / "model.onnx"), "--data", str(tiny_set)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3
