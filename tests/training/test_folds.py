"""An ensemble of runs that each left a fold aside: calibrated on all photos, each scored by those that had not seen it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from detector.tolerance import PROBABILITY, disagreement
from tests.training.conftest import TINY, combine, fit
from training.evaluation.scores import ScoreTable
from unmask.__main__ import main

pytestmark = pytest.mark.slow

QUICK = [*TINY, "--epochs", 2, "--folds", 3]


@pytest.fixture(scope="module")
def members(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run for each of three folds; not to be written to."""
    runs = [tmp_path_factory.mktemp("folds") / f"without-{k}" for k in (1, 2, 3)]
    for k, run in enumerate(runs, 1):
        assert fit("--data", tiny_set, "--out", run, "--fold", k, "--seed", k, *QUICK) == 0
    return runs


@pytest.fixture(scope="module")
def ensemble(tiny_set: Path, members: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What they make together; not to be written to."""
    out = tmp_path_factory.mktemp("ensemble") / "run"
    assert combine(tiny_set, out, members) == 0
    return out


def test_each_photo_is_scored_for_the_curve_by_the_member_that_left_it_aside(ensemble: Path, members: list[Path]) -> None:
    aside = [ScoreTable.load(run).of("calibrate") for run in members]
    alone = {name: raw for table in aside for name, raw in zip(table.names, table.raw, strict=True)}
    together = ScoreTable.load(ensemble).of("calibrate")
    assert len(together.names) == len(alone) == sum(len(table.names) for table in aside) == 108
    assert not disagreement(together.raw, [alone[name] for name in together.names], PROBABILITY)
    metrics = json.loads((ensemble / "metrics.json").read_text())
    assert metrics["counts"]["fit"] == metrics["counts"]["calibrate"] == {"real": 54, "fake": 54}
    assert json.loads((ensemble / "calibration.json").read_text())["n"] == 108
    assert "by the members that had left it aside" in metrics["split"]
    page = (ensemble / "report" / "index.html").read_text(encoding="utf-8")
    assert "by the members that had left it aside" in page


def test_what_is_reported_is_scored_by_all(ensemble: Path, members: list[Path]) -> None:
    def logits(run: Path) -> np.ndarray:
        raw = ScoreTable.load(run).of("validation").raw.astype(float)
        return np.log(raw / (1 - raw))

    alone = np.stack([logits(run) for run in members])
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    assert logits(ensemble) == pytest.approx(alone.mean(axis=0), abs=1e-3)


def test_an_ensemble_lacks_no_fold_and_has_none_oftener(
    members: list[Path], tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for some, words in ((members[:2], "1 without fold 1, 1 without fold 2"), ([*members, members[0]], "each once")):
        assert combine(tiny_set, tmp_path / "run", some) == 2
        assert words in capsys.readouterr().err
    again = tmp_path / "again"
    shutil.copytree(members[0], again)
    assert combine(tiny_set, tmp_path / "run", members, "--folds", 3, "--fold", 1) == 2
    assert "--fold: an ensemble is not trained; leave it out" in capsys.readouterr().err
    assert combine(tiny_set, tmp_path / "run", [*members, again]) == 2
    assert (
        "each of the 3 folds must be left aside by equally many of them; there are 2 without fold 1" in capsys.readouterr().err
    )


def test_its_photos_calibrate_it_anew_by_the_scores_of_those_that_had_not_seen_them(
    ensemble: Path, tiny_set: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(ensemble, tmp_path / "run")
    assert main(["calibrate", "--run", str(run), "--data", str(tiny_set), "--calibration", "platt"]) == 0
    now, then = (json.loads((folder / "calibration.json").read_text()) for folder in (run, ensemble))
    assert now["n"] == then["n"] == 108
    assert now["parameters"] == pytest.approx(then["parameters"], rel=1e-6)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--folds", "3"], "--folds needs --fold"),
        (["--fold", "1"], "--fold must be from 1 to --folds"),
        (["--folds", "3", "--fold", "4"], "--fold must be from 1 to --folds"),
        (["--folds", "1", "--fold", "1"], "--folds must be from 2 to 20"),
        (["--folds", "3", "--fold", "1", "--calibration", "none"], "leaves photos aside to calibrate on"),
        (["--folds", "3", "--fold", "1", "--cross-fit", "3"], "give one of them"),
        (["--cross-fit", "1"], "--cross-fit must be 0, or from 2 to 20"),
        (["--cross-fit", "3", "--calibrate-fraction", "0.2"], "leave --calibrate-fraction out"),
        (["--cross-fit", "3", "--calibration", "none"], "give a --calibration"),
    ],
)
def test_folds_that_make_no_sense_are_refused(
    flags: list[str], words: str, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(tiny_set), "--out", str(tmp_path / "run"), *flags]) == 2
    assert words in capsys.readouterr().err
