"""`unmask bench training` times both sides on the same work and says by how much one is faster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.conftest import draw_set
from unmask.__main__ import main

pytestmark = pytest.mark.slow


def test_both_sides_train_the_same_and_the_ratio_is_that_of_their_speeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = draw_set(tmp_path / "data", train=40, validation=10)
    flags = ("--model", "test_resnet", "--size", "32", "--batch-size", "16", "--epochs", "1", "--pairs", "1", "--workers", "0")
    assert main(["bench", "training", "--data", str(data), *flags]) == 0
    result = json.loads(capsys.readouterr().out)
    (pair,) = result["images_per_second"]
    assert pair["ours"] > 0
    assert pair["timm"] > 0
    assert result["ratio"]["median"] == pytest.approx(pair["ours"] / pair["timm"], rel=0.01)
    assert result["machine"]["cores"] >= 1


def test_a_side_that_fails_is_reported_with_what_it_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = draw_set(tmp_path / "data", train=4, validation=2)  # too few to divide
    assert main(["bench", "training", "--data", str(data), "--model", "test_resnet", "--size", "32", "--pairs", "1"]) == 1
    said = capsys.readouterr().err
    assert "comparison_failed" in said
    assert "of each class are needed" in said
    assert main(["bench", "training", "--data", str(tmp_path / "nowhere")]) == 2
