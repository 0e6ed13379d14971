"""The parity gate: an export that can't be proven writes nothing, and what was there before stays."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from detector import CalibrationCurve, Manifest, decode_image
from detector.scorer import Scorer
from detector.tolerance import CURVE, compare
from export import ParityError, export_run
from export.graph import ScoringGraph
from export.onnx_model import save_model, scores_to_onnx
from export.parity import measure_parity
from export.pictures import drawn
from export.reduced.noise import Noise, measure_noise
from export.runners import Answers, Runner, checkpoint_runner, onnx_runner
from tests.conftest import write_json
from training.models.checkpoint import load_checkpoint, save_checkpoint
from unmask.__main__ import main

pytestmark = pytest.mark.slow


def scaled(run: Path, folder: Path, gain: float, shift: float = 0.0) -> Path:
    """The run's network with `gain * (logit - shift)` for a logit, and no curve."""
    checkpoint = load_checkpoint(run / "best_model.pth")
    weight, bias = [k for k in checkpoint.weights if k.startswith("head.")][-2:]
    last = {weight: checkpoint.weights[weight] * gain, bias: (checkpoint.weights[bias] - shift) * gain}
    save_checkpoint(folder / "best_model.pth", replace(checkpoint, weights=checkpoint.weights | last))
    return folder


def test_a_network_with_logits_of_160_goes_out(squeezenet_run, photo_files, tmp_path, capsys):
    """Their float32 noise is above any small number, and as small beside them as that of other logits."""
    run, out = scaled(squeezenet_run, tmp_path, 80), tmp_path / "artifacts"
    assert main(["export", "--run", str(run), "--out", str(out), "--photos", str(photo_files[0].parent)]) == 0
    spec = Manifest.load(out / "manifest.json").image_spec
    images = np.stack([decode_image(p.read_bytes(), spec) for p in photo_files])
    assert np.abs(Scorer(out / "model.onnx").scores(images)[0]).max() > 160


def test_a_swapped_layer_is_found_also_where_logits_are_large(squeezenet_run, tmp_path):
    checkpoint = load_checkpoint(scaled(squeezenet_run, tmp_path, 80) / "best_model.pth")
    spec, path = checkpoint.image_spec, tmp_path / "model.onnx"
    graph, images = ScoringGraph(checkpoint.build(), spec), drawn(spec)
    model = scores_to_onnx(graph, spec, 18)
    save_model(model, path, {})
    measure_parity([checkpoint_runner(graph), onnx_runner(path)], images, CalibrationCurve.identity()).require()
    kernels = [t for t in model.graph.initializer if len(t.dims) == 4]
    one, other = next((a, b) for a, b in combinations(kernels, 2) if a.dims == b.dims)
    one.raw_data, other.raw_data = other.raw_data, one.raw_data
    save_model(model, path, {})
    with pytest.raises(ParityError, match="logit, onnx: "):
        measure_parity([checkpoint_runner(graph), onnx_runner(path)], images, CalibrationCurve.identity()).require()


def test_a_run_whose_runtimes_disagree_fails_and_leaves_what_was_there(squeezenet_run, photo_files, tmp_path, capsys):
    """Of one photo the logit is what is left of a million times larger terms: rounding alone."""
    checkpoint = load_checkpoint(squeezenet_run / "best_model.pth")
    pixels = decode_image(photo_files[0].read_bytes(), checkpoint.image_spec)[None]
    [answer] = checkpoint_runner(ScoringGraph(checkpoint.build(), checkpoint.image_spec)).answers(pixels, 1, 1).logit
    copies, run, place = tmp_path / "copies", tmp_path / "run", tmp_path / "place"
    for folder in (copies, run, place / "artifacts"):
        folder.mkdir(parents=True)
    for i in range(32):
        shutil.copy(photo_files[0], copies / f"{i}.jpg")
    scaled(squeezenet_run, run, 1e6, float(answer))
    out = place / "artifacts"
    (out / "manifest.json").write_text("what was here before")
    assert main(["export", "--run", str(run), "--out", str(out), "--photos", str(copies)]) == 1
    assert "logit, onnx: " in capsys.readouterr().err
    assert [p.name for p in place.iterdir()] == ["artifacts"]
    assert (out / "manifest.json").read_text() == "what was here before"


def test_weights_that_are_no_numbers_are_refused(squeezenet_run, tmp_path):
    checkpoint = load_checkpoint(squeezenet_run / "best_model.pth")
    weights = {k: torch.full_like(v, float("nan")) if k.startswith("head.") else v for k, v in checkpoint.weights.items()}
    save_checkpoint(tmp_path / "best_model.pth", replace(checkpoint, weights=weights))
    with pytest.raises(ParityError, match="no finite number"):
        export_run(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def runner(name: str, offset: float = 0.0, per_image: float = 0.0, heat: float = 1.0) -> Runner:
    """A runner that answers the mean brightness, off by `offset`, and by `per_image` for each image it travels with."""

    def score(images: np.ndarray) -> Answers:
        logit = (images.mean(axis=(1, 2, 3)) / 255 + offset + per_image * len(images)).astype(np.float32)
        return Answers(logit, 1 / (1 + np.exp(-logit)), heat * np.ones((len(images), 2, 2), np.float32))

    return Runner(name, lambda threads: score)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (runner("onnx"), None),
        (runner("onnx", offset=5e-5), None),
        (runner("onnx", offset=3e-4), "logit, onnx"),
        (runner("onnx", per_image=7e-5), "logit, onnx"),
        (runner("onnx", heat=1.001), "heatmap, onnx"),
        (runner("onnx", offset=float("nan")), "logit, onnx"),
    ],
)
def test_the_gate_names_what_is_over_its_limit(other, named, pixels):
    parity = measure_parity([runner("checkpoint"), other], pixels, CalibrationCurve.identity())
    if named is None:
        parity.require()
    else:
        with pytest.raises(ParityError, match=named):
            parity.require()
        json.dumps(parity.to_dict(), allow_nan=False)


def test_a_curve_off_by_more_than_a_millionth_is_refused(pixels):
    parity = measure_parity([runner("checkpoint")], pixels, CalibrationCurve.identity())
    with pytest.raises(ParityError, match=r"curve: .*, 2e-06 apart \(at most 1e-06\)"):
        replace(parity, curve=compare([0.5 + 2e-6], [0.5], CURVE)).require()


def test_noise_between_batches_is_measured_and_bounds_the_slope(pixels):
    noise = measure_noise([runner("a"), runner("b", per_image=1e-6)], pixels)
    assert noise.logit == pytest.approx(8e-6, rel=0.05)
    assert noise.bound >= 4 * noise.raw_prob
    assert noise.max_slope * noise.bound == pytest.approx(1e-3)


def test_noise_too_small_to_show_is_not_taken_for_none():
    assert Noise(logit=0.0, raw_prob=0.0, ways=1).max_slope < 2000


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--threshold", "1.5"], 2, "between 0 and 1"),
        (["--name", "no/slash"], 2, "name 'no/slash'"),
        (["--opset", "7"], 2, "opset 7"),
        (["--checkpoint", "final"], 1, "final_model.pth: no such checkpoint"),
        (["--photos", "."], 1, "parity needs 32 photos"),
    ],
)
def test_what_can_not_work_is_said_in_one_line(arguments, code, said, run_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "--run", str(run_dir), "--out", str(tmp_path / "out"), *arguments]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_broken_calibration_file_is_named(run_dir, tmp_path, capsys):
    (tmp_path / "best_model.pth").write_bytes((run_dir / "best_model.pth").read_bytes())
    write_json(tmp_path / "calibration.json", {"method": "isotonic", "x": [0.5, 0.1], "y": [0, 1]})
    assert main(["export", "--run", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "calibration.json: calibration curve: x must increase" in capsys.readouterr().err
