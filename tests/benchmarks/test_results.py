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
from unmask.registry import build

pytestmark = pytest.mark.slow


@pytest.fixture
def small_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The table reduced to two folds of one small network and their ensemble; returns the file of first weights.

    Starting a run takes far longer than training it, so each row counts.
    """
    quick = ("--epochs", "1", "--batch-size", "16", "--workers", "0", "--device", "cpu")
    monkeypatch.setattr(results, "FOLDS", 2)
    monkeypatch.setattr(results, "SCRATCH", {})
    frozen = ("--model", "squeezenet1_1", "--multiscale", "--gram", "2", "--freeze-backbone", "--augment", "flip")
    monkeypatch.setattr(results, "MEMBERS", {"squeezenet1_1 frozen": (*frozen, *quick)})
    features = torchvision.models.squeezenet1_1(weights=None).features.state_dict()
    save_file({f"features.{k}": v for k, v in features.items()}, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_every_row_is_trained_once_and_the_page_says_what_was_measured(small_table: Path, tmp_path: Path) -> None:
    sets = [results.PhotoSet("drawn", draw_set(tmp_path / "data", train=40, validation=12), 32)]
    measured = results.train_all(sets, small_table, tmp_path / "runs", jobs=2)
    names = [row["name"] for row in measured["drawn"]]
    assert names == ["squeezenet1_1 frozen, fold 1", "squeezenet1_1 frozen, fold 2", "squeezenet1_1 frozen, all folds"]
    reported = tmp_path / "runs" / "drawn" / "squeezenet1_1_frozen_all_folds" / "metrics.json"
    auc = json.loads(reported.read_text())["validation"]["auc"]
    text = results.page(measured, jobs=1)
    assert f"{auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f})" in text
    assert text.count("\n| ") == 1 + len(names)
    best = max(measured["drawn"], key=lambda row: row["auc"]["value"])
    assert f"Best: {best['name']}" in text
    written = tmp_path / "results.md"
    assert results.notes(written) == ""
    written.write_text(f"{text}{results.NOTES}\nSmaller crops are faster.\n")
    assert results.notes(written) == f"{results.NOTES}\nSmaller crops are faster.\n"
    before = reported.stat().st_mtime_ns
    assert results.train_all(sets, small_table, tmp_path / "runs", jobs=1) == measured
    assert reported.stat().st_mtime_ns == before


def test_train_accepts_the_arguments_of_every_row(tmp_path: Path) -> None:
    photos = results.PhotoSet("faces", tmp_path, 256)
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    rows = results.plan(photos, weights)
    assert len(rows) == 2 * (results.FOLDS + 1) + len(results.SCRATCH)
    for row in rows:
        arguments = ["train", *results.train_arguments(photos, row, tmp_path)]
        _, bound, unused = build().parse_args(arguments, exit_on_error=False, print_error=False)
        assert unused == {}
        assert bound.arguments


def test_what_is_not_there_is_said_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--faces", tmp_path, "--composites", tmp_path / "none", "--weights", tmp_path, "--runs", tmp_path / "runs")
    assert main(["bench", "results", *map(str, flags)]) == 2
    assert "none: no such file or folder" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
