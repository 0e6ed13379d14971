"""`unmask bench results` trains a table's rows, goes on where it was stopped, and reports what the runs measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torchvision
from safetensors.torch import save_file

from benchmarks.training import results
from tests.training.conftest import draw_set
from unmask.__main__ import main

pytestmark = pytest.mark.slow


@pytest.fixture
def small_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two folds and one row from random weights, of networks that train in seconds; the file of first weights."""
    quick = ("--size", "32", "--epochs", "1", "--batch-size", "16", "--workers", "0", "--device", "cpu")
    monkeypatch.setattr(results, "FOLDS", 2)
    monkeypatch.setattr(results, "SCRATCH", {"test_resnet": ("--no-pretrained", *quick)})
    start = ("--model", "squeezenet1_1", "--multiscale")
    monkeypatch.setattr(results, "TRANSFER", (*start, *quick))
    monkeypatch.setattr(results, "FROZEN", (*start, "--gram", "2", "--freeze-backbone", "--augment", "flip", *quick))
    features = torchvision.models.squeezenet1_1(weights=None).features.state_dict()
    save_file({f"features.{k}": v for k, v in features.items()}, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_every_row_is_trained_once_and_the_page_says_what_was_measured(small_table: Path, tmp_path: Path) -> None:
    sets = [results.PhotoSet("drawn", draw_set(tmp_path / "data", train=100, validation=20), 32)]
    measured = results.train_all(sets, small_table, tmp_path / "runs", jobs=2)
    names = [row["name"] for row in measured["drawn"]]
    learned, frozen = ([f"squeezenet1_1{kind}, fold {k}" for k in (1, 2)] for kind in ("", " frozen"))
    assert names == [*learned, *frozen, "test_resnet", "ensemble of these"]
    reported = tmp_path / "runs" / "drawn" / "test_resnet" / "metrics.json"
    auc = json.loads(reported.read_text())["validation"]["auc"]
    text = results.page(measured, jobs=1)
    assert f"{auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f})" in text
    assert text.count("\n| ") == 1 + len(names)
    best = max(measured["drawn"], key=lambda row: row["auc"]["value"])
    assert f"Best: {best['name']}" in text
    before = reported.stat().st_mtime_ns
    assert results.train_all(sets, small_table, tmp_path / "runs", jobs=1) == measured
    assert reported.stat().st_mtime_ns == before


def test_what_is_not_there_is_said_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--faces", tmp_path, "--composites", tmp_path / "none", "--weights", tmp_path, "--runs", tmp_path / "runs")
    assert main(["bench", "results", *map(str, flags)]) == 2
    assert "none: no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
