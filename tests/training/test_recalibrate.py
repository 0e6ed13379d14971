"""`unmask calibrate`: another curve for a finished run, from photos that it has not seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from detector import CalibrationCurve
from tests.training.conftest import draw
from training.evaluation.scores import ScoreTable
from unmask.__main__ import main

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def new_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty-six photos with the names of the run's own, and other content."""
    folder = tmp_path_factory.mktemp("new")
    for label, grain in (("Real", 3), ("Fake", 30)):
        draw(folder / "Train" / label, 30, grain=grain, seed=70 + grain)
        draw(folder / "Validation" / label, 3, grain=grain, seed=80 + grain)
    return folder


def recalibrate(*arguments: object) -> int:
    return main(["calibrate", *map(str, arguments)])


def test_the_score_table_holds_each_photo_once_and_scores_only_what_was_held_out(tiny_run: Path) -> None:
    table, metrics = ScoreTable.load(tiny_run), json.loads((tiny_run / "metrics.json").read_text())
    assert len(set(table.names)) == 180
    for part in ("fit", "tune", "calibrate", "validation"):
        rows = table.of(part)
        assert len(rows.names) == sum(metrics["counts"][part].values())
        assert np.isnan(rows.raw).all() == (part in ("fit", "tune"))
    validation = table.of("validation")
    assert metrics["validation"]["brier_raw"]["value"] == pytest.approx(
        ((validation.raw.astype(float) - validation.labels) ** 2).mean()
    )


def test_other_photos_give_another_curve_and_the_reported_numbers_follow_it(run: Path, new_photos: Path) -> None:
    before = json.loads((run / "metrics.json").read_text())
    weights = (run / "best_model.pth").read_bytes()
    assert recalibrate("--run", run, "--data", new_photos, "--calibration", "isotonic", "--target-fpr", 0.1) == 0
    after = json.loads((run / "metrics.json").read_text())
    record = json.loads((run / "calibration.json").read_text())
    assert (record["method"], record["n"]) == ("isotonic", 66)
    assert after["calibration"]["counts"] == {"real": 33, "fake": 33}
    assert after["calibration"]["left_out"] == {}
    curve, validation = CalibrationCurve.from_dict(record), ScoreTable.load(run).of("validation")
    calibrated = curve(validation.raw).astype(float)
    assert after["validation"]["brier"]["value"] == pytest.approx(((calibrated - validation.labels) ** 2).mean())
    assert after["validation"]["brier_raw"] == before["validation"]["brier_raw"]
    choice = after["threshold_choice"]
    assert choice["threshold"] == after["threshold"] == after["validation"]["threshold"]
    assert choice["flagged_real"] <= 3
    assert choice["n_real"] == 33
    assert (run / "best_model.pth").read_bytes() == weights
    assert "recalibrated on 66 photos of" in (run / "report" / "index.html").read_text(encoding="utf-8")


def test_the_runs_own_folder_gives_back_the_photos_that_it_was_calibrated_on(
    run: Path, tiny_run: Path, tiny_set: Path
) -> None:
    assert recalibrate("--run", run, "--data", tiny_set, "--calibration", "platt") == 0
    now, then = (json.loads((folder / "calibration.json").read_text()) for folder in (run, tiny_run))
    assert now["n"] == then["n"] == 12
    assert now["parameters"] == pytest.approx(then["parameters"], rel=1e-3)
    left_out = json.loads((run / "metrics.json").read_text())["calibration"]["left_out"]
    assert left_out == {"fitted on": 96, "tuned on": 12, "reported on": 60}


def test_photos_that_are_reported_on_decide_nothing_whatever_their_names(run: Path, tiny_set: Path, tmp_path: Path, capsys):
    for label in ("Real", "Fake"):
        shutil.copytree(tiny_set / "Validation" / label, tmp_path / "renamed" / label)
        for i, file in enumerate(sorted((tmp_path / "renamed" / label).iterdir())):
            file.rename(file.with_name(f"other-{i}.jpg"))
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    assert recalibrate("--run", run, "--data", tmp_path / "renamed", "--calibration", "platt") == 2
    assert "60 left out that the run was reported on" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before


def test_what_is_no_run_is_refused_in_a_line(tmp_path: Path, tiny_set: Path, run: Path, capsys) -> None:
    assert recalibrate("--run", tmp_path / "nowhere", "--data", tiny_set) == 1
    (run / "scores.csv").write_text("no,table\n1,2\n")
    assert recalibrate("--run", run, "--data", tiny_set) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "metrics.json: no such file" in said[0]
    assert "is not a score table" in said[1]
