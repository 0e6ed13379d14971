"""Cross-fitting: each training photo is fitted on, and scored for the calibration by a network that has not seen it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.conftest import TINY, combine, fit
from training.evaluation.scores import ScoreTable
from training.fit import cross_fit
from training.options import CROSS_FIT, CROSS_FITTED_BELOW, FitOptions
from unmask.__main__ import main

pytestmark = pytest.mark.slow

PLATEAU = [*TINY, "--epochs", 2]
COSINE = [*PLATEAU, "--schedule", "cosine"]


def metrics_of(run: Path) -> dict[str, Any]:
    metrics = json.loads((run / "metrics.json").read_text())
    metrics.pop("speed")
    return metrics


@pytest.fixture(scope="module")
def run(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose calibration is cross-fitted in two folds, and that tuned nothing; not to be written to."""
    out = tmp_path_factory.mktemp("crossed") / "run"
    assert fit("--data", tiny_set, "--out", out, *COSINE, "--cross-fit", 2, "--target-fpr", 0.1, report=True) == 0
    return out


def test_all_photos_are_fitted_on_and_calibrated_on_and_the_run_says_how(run: Path) -> None:
    metrics = metrics_of(run)
    assert metrics["counts"]["fit"] == metrics["counts"]["calibrate"] == {"real": 60, "fake": 60}
    assert metrics["counts"]["tune"] == {"real": 0, "fake": 0}
    assert json.loads((run / "calibration.json").read_text())["n"] == 120
    assert metrics["threshold_choice"]["n_real"] == 60
    assert metrics["cross_fit"]["folds"] == metrics["arguments"]["cross_fit"] == 2
    assert [network["epochs"] for network in metrics["cross_fit"]["networks"]] == [2, 2]
    assert not {"tune_auc", "tune_loss"} & set(metrics["history"][0])
    assert "cross-fitted" in metrics["split"]
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert metrics["split"] in page
    assert "Cross-fitted in 2 folds" in page
    assert metrics["split"] in (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert not (run / "folds").exists()


def test_each_photo_is_scored_by_a_network_that_was_fitted_without_its_fold(tiny_set: Path, tmp_path: Path) -> None:
    assert fit("--data", tiny_set, "--out", tmp_path / "crossed", *PLATEAU, "--cross-fit", 2) == 0
    crossed = ScoreTable.load(tmp_path / "crossed").of("calibrate")
    scored = dict(zip(crossed.names, crossed.raw, strict=True))
    assert len(scored) == 108  # a tenth decided which epoch is kept
    assert fit("--data", tiny_set, "--out", tmp_path / "alone", *PLATEAU, "--folds", 2, "--fold", 2) == 0
    aside = ScoreTable.load(tmp_path / "alone").of("calibrate")  # the same recipe, and the second fold never seen
    assert len(aside.names) == 54
    told = metrics_of(tmp_path / "crossed")["cross_fit"]["networks"][1]  # how sure it is beside the one that is kept
    mine = np.array([scored[name] for name in aside.names], np.float64)
    matched = told["scale"] * (np.log(aside.raw) - np.log1p(-aside.raw)) + told["shift"]
    np.testing.assert_allclose(np.log(mine) - np.log1p(-mine), matched, atol=1e-3)


def test_a_run_interrupted_in_a_fold_goes_on_there(
    run: Path, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def save_and_stop(path: Path, *rest: Any) -> None:
        written(path, *rest)
        trained.append(path.name)
        if trained[-1] == "2.pth":
            raise KeyboardInterrupt

    written = cross_fit.save_checkpoint
    arguments = ["--data", tiny_set, "--out", tmp_path / "run", *COSINE, "--cross-fit", 2, "--target-fpr", 0.1]
    monkeypatch.setattr(cross_fit, "save_checkpoint", save_and_stop)
    assert fit(*arguments) == 130
    said = capsys.readouterr().err
    assert "2 more networks are trained" in said
    assert "fold 2/2, epoch 1/2" in said
    assert "--resume" in said
    assert trained == ["last.pth", "last.pth", "final_model.pth", "1.pth", "1.pth", "2.pth"]
    assert not (tmp_path / "run" / "metrics.json").exists()
    trained.clear()
    monkeypatch.setattr(cross_fit, "save_checkpoint", lambda path, *rest: (written(path, *rest), trained.append(path.name)))
    assert fit(*arguments, "--resume") == 0
    assert trained == ["final_model.pth", "2.pth"]
    assert metrics_of(tmp_path / "run") == metrics_of(run)


def test_a_run_says_which_method_was_chosen_and_why(run: Path) -> None:
    said, page = metrics_of(run)["calibration"], (run / "report" / "index.html").read_text(encoding="utf-8")
    assert said["method"] == json.loads((run / "calibration.json").read_text())["method"]
    assert {"none", "platt"} <= set(said["candidates"]) <= {"none", "platt", "temperature"}
    assert said["candidates"]["none"].keys() == {"brier", "log_loss", "ece", "smooth_ece", "brier_skill"}
    assert said["why"] in page
    assert f"{said['candidates']['platt']['log_loss']:.4f}" in page
    assert said["why"] in (run / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_its_own_photos_calibrate_it_anew_by_the_scores_of_networks_that_had_not_seen_them(
    run: Path, tiny_set: Path, tmp_path: Path
) -> None:
    again = shutil.copytree(run, tmp_path / "run")
    command = ["calibrate", "--run", str(again), "--data", str(tiny_set)]
    assert main([*command, "--target-fpr", "0.1"]) == 0
    for name in ("calibration.json", "scores.csv"):
        assert (again / name).read_bytes() == (run / name).read_bytes()
    assert metrics_of(again)["calibration"]["left_out"] == {"reported on": 60}
    assert metrics_of(again)["threshold"] == metrics_of(run)["threshold"]
    assert main([*command, "--calibration", "platt"]) == 0
    assert json.loads((again / "calibration.json").read_text())["n"] == 120


def test_an_ensemble_of_such_runs_is_calibrated_on_the_mean_of_their_scores(
    run: Path, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = tmp_path / "other", tmp_path / "ensemble"
    assert fit("--data", tiny_set, "--out", other, *COSINE, "--cross-fit", 2, "--seed", 1) == 0
    assert combine(tiny_set, out, [run, other], "--mirror") == 2
    assert "scored no mirror images" in capsys.readouterr().err
    assert combine(tiny_set, out, [run, other]) == 0
    mean, one, two = (ScoreTable.load(folder).of("calibrate") for folder in (out, run, other))
    assert mean.names == one.names == two.names
    logits = [np.log(table.raw) - np.log1p(-table.raw) for table in (mean, one, two)]
    np.testing.assert_allclose(logits[0], (logits[1] + logits[2]) / 2, atol=1e-3)
    metrics = metrics_of(out)
    assert metrics["cross_fit"] == {"folds": 2}
    assert metrics["counts"]["fit"] == metrics["counts"]["calibrate"] == {"real": 60, "fake": 60}


@pytest.mark.parametrize(
    ("options", "photos", "folds"),
    [
        ({}, CROSS_FITTED_BELOW - 1, CROSS_FIT),
        ({}, CROSS_FITTED_BELOW, 0),
        ({"freeze_backbone": True, "augment": "flip"}, 10 * CROSS_FITTED_BELOW, CROSS_FIT),
        ({"cross_fit": 7}, 10 * CROSS_FITTED_BELOW, 7),
        ({"cross_fit": 0}, 100, 0),
        ({"calibrate_fraction": 0.2}, 100, 0),
        ({"folds": 5, "fold": 1}, 100, 0),
        ({"calibration": "none"}, 100, 0),
        ({"calibration": "none", "target_fpr": 0.05}, 100, CROSS_FIT),
    ],
)
def test_the_number_of_folds_follows_from_the_photos_unless_it_is_said(
    options: dict[str, Any], photos: int, folds: int
) -> None:
    assert FitOptions(Path("data"), **options).crossed(photos) == folds
