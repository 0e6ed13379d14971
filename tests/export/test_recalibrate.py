"""`unmask recalibrate`: a new curve and threshold in old artifacts, and not one weight touched."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from detector import Manifest, decode_image
from detector.scorer import Scorer
from detector.tolerance import CURVE, disagreement
from export.archive import extract_archive
from tests.conftest import write_json
from training.models.checkpoint import load_checkpoint, save_checkpoint
from unmask.__main__ import main


def weights(model: Path) -> dict[str, bytes]:
    """Every tensor of a graph but the curve's, to the bit."""
    tensors = onnx.load(model).graph.initializer
    return {t.name: t.SerializeToString() for t in tensors if not t.name.startswith("calibration/")}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def new_run(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights with another curve, threshold and account of them."""
    run = Path(shutil.copytree(run_dir, tmp_path_factory.mktemp("recalibrated") / "run"))
    write_json(run / "calibration.json", {"method": "platt", "x": [0, 0.5, 1], "y": [0.1, 0.2, 0.95], "n": 300})
    metrics = json.loads((run / "metrics.json").read_text())
    metrics |= {"threshold": 0.3, "threshold_choice": {"threshold": 0.3, "target_fpr": 0.05, "n_real": 150}}
    write_json(run / "metrics.json", metrics)
    return run


@pytest.fixture(scope="module")
def recalibrated(artifacts: Path, new_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(artifacts, tmp_path_factory.mktemp("swap") / "artifacts"))
    assert main(["recalibrate", str(folder), "--run", str(new_run)]) == 0
    return folder


def test_the_weights_are_those_that_were_there(artifacts, recalibrated, tmp_path):
    before, after = weights(artifacts / "model.onnx"), weights(recalibrated / "model.onnx")
    assert len(before) > 50
    assert before == after
    for folder in (artifacts, recalibrated):
        extract_archive(folder / "detector-torchscript.mar", tmp_path / folder.parent.name)
    scripts = [(tmp_path / folder.parent.name / "model.pt").read_bytes() for folder in (artifacts, recalibrated)]
    assert scripts[0] == scripts[1]


def test_scores_keep_their_raw_probability_and_take_the_new_curve_and_threshold(artifacts, recalibrated, photos):
    old, new = Scorer(artifacts / "model.onnx"), Scorer(recalibrated / "model.onnx")
    images = np.stack([decode_image(p, old.manifest.image_spec) for p in photos])
    (_, raw, before), (_, same, after) = old.scores(images), new.scores(images)
    np.testing.assert_array_equal(raw, same)
    assert not disagreement(after, np.interp(raw, [0, 0.5, 1], [0.1, 0.2, 0.95]), CURVE)
    assert np.abs(after - before).max() > 0.1
    assert {new.score(p).prediction for p in photos} == {"Real", "Fake"}
    assert all((v.prediction == "Fake") == (v.calibrated >= 0.3) for v in (new.score(p) for p in photos))


def test_manifests_hashes_and_archives_hold_together(recalibrated, capsys, tmp_path):
    assert main(["verify", str(recalibrated)]) == 0
    assert "all 5 checks passed" in capsys.readouterr().out
    outer = Manifest.load(recalibrated / "manifest.json")
    for name in ("detector-onnx.mar", "detector-torchscript.mar"):
        inner = extract_archive(recalibrated / name, tmp_path / name)
        assert (inner.threshold, inner.calibration_method) == (0.3, "platt")
        assert inner.curve.to_dict() == outer.curve.to_dict()
    assert outer.training["threshold_choice"]["target_fpr"] == 0.05
    assert outer.parity["curve"]["fraction"] <= 1
    assert [p.name for p in recalibrated.parent.iterdir()] == ["artifacts"]


def test_swapping_back_gives_the_bytes_of_the_export(recalibrated, run_dir, artifacts, tmp_path):
    folder = Path(shutil.copytree(recalibrated, tmp_path / "back"))
    assert main(["recalibrate", str(folder), "--run", str(run_dir)]) == 0
    assert (folder / "model.onnx").read_bytes() == (artifacts / "model.onnx").read_bytes()


def other_weights(run: Path) -> str:
    checkpoint = load_checkpoint(run / "best_model.pth")
    last = [k for k in checkpoint.weights if k.endswith("bias")][-1]
    save_checkpoint(
        run / "best_model.pth", replace(checkpoint, weights=checkpoint.weights | {last: checkpoint.weights[last] + 0.01})
    )
    return "the runtimes disagree"


def other_photos(run: Path) -> str:
    save_checkpoint(run / "best_model.pth", replace(load_checkpoint(run / "best_model.pth"), fingerprint="f" * 64))
    return "trained on other photos"


def broken_curve(run: Path) -> str:
    write_json(run / "calibration.json", {"method": "platt", "x": [0, 1], "y": [0.9, 0.1]})
    return "y must not decrease"


@pytest.mark.parametrize("spoil", [other_weights, other_photos, broken_curve])
def test_what_is_not_the_runs_is_refused_and_stays_as_it_was(artifacts, new_run, spoil, tmp_path, capsys):
    folder, run = (Path(shutil.copytree(a, tmp_path / b)) for a, b in ((artifacts, "artifacts"), (new_run, "run")))
    said, before = spoil(run), contents(folder)
    assert main(["recalibrate", str(folder), "--run", str(run)]) in (1, 2)
    assert said in capsys.readouterr().err
    assert contents(folder) == before
    assert {p.name for p in tmp_path.iterdir()} == {"artifacts", "run"}
