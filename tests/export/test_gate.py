"""The parity gate: an export that can't be proven writes nothing, and what was there before stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from export import ParityError, export_run
from export.noise import Noise, measure_noise
from export.parity import compare_roads, require
from export.runners import Answers, Road
from tests.conftest import write_json
from training.models.checkpoint import load_checkpoint, save_checkpoint
from unmask.__main__ import main


@pytest.fixture(scope="module")
def noisy_run(squeezenet_run, tmp_path_factory):
    """A network whose logits are so large that float32 can't tell them to 1e-4."""
    folder = tmp_path_factory.mktemp("noisy")
    checkpoint = load_checkpoint(squeezenet_run / "best_model.pth")
    last = [k for k in checkpoint.weights if k.startswith("head.")][-2:]
    weights = {k: v * 1000 if k in last else v for k, v in checkpoint.weights.items()}
    save_checkpoint(folder / "best_model.pth", replace(checkpoint, weights=weights))
    return folder


def test_a_run_whose_roads_disagree_fails_and_leaves_what_was_there(noisy_run, tmp_path, capsys):
    out = tmp_path / "artifacts"
    out.mkdir()
    (out / "manifest.json").write_text("what was here before")
    assert main(["export", "--run", str(noisy_run), "--out", str(out)]) == 1
    assert "logit, onnx: " in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["artifacts"]
    assert (out / "manifest.json").read_text() == "what was here before"


def test_weights_that_are_no_numbers_are_refused(squeezenet_run, tmp_path):
    checkpoint = load_checkpoint(squeezenet_run / "best_model.pth")
    weights = {k: torch.full_like(v, float("nan")) if k.startswith("head.") else v for k, v in checkpoint.weights.items()}
    save_checkpoint(tmp_path / "best_model.pth", replace(checkpoint, weights=weights))
    with pytest.raises(ParityError, match="no finite number"):
        export_run(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def road(name: str, offset: float = 0.0, per_image: float = 0.0, heat: float = 1.0) -> Road:
    """A road that answers the mean brightness, off by `offset`, and by `per_image` for each image it travels with."""

    def score(images: np.ndarray) -> Answers:
        logit = (images.mean(axis=(1, 2, 3)) / 255 + offset + per_image * len(images)).astype(np.float32)
        return Answers(logit, 1 / (1 + np.exp(-logit)), heat * np.ones((len(images), 2, 2), np.float32))

    return Road(name, lambda threads: score)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (road("onnx"), None),
        (road("onnx", offset=5e-5), None),
        (road("onnx", offset=2e-4), "logit, onnx"),
        (road("onnx", per_image=5e-5), "logit, onnx"),
        (road("onnx", heat=1.001), "heatmap, onnx"),
        (road("onnx", offset=float("nan")), "logit, onnx"),
    ],
)
def test_the_gate_names_what_is_over_its_limit(other, named, pixels):
    from detector import CalibrationCurve

    report = compare_roads([road("checkpoint"), other], pixels, CalibrationCurve.identity()) | {"curve": {"error": 0.0}}
    if named is None:
        require(report)
    else:
        with pytest.raises(ParityError, match=named):
            require(report)


def test_a_curve_off_by_more_than_a_millionth_is_refused(pixels):
    from detector import CalibrationCurve

    report = compare_roads([road("checkpoint")], pixels, CalibrationCurve.identity())
    with pytest.raises(ParityError, match="curve: 2e-06"):
        require(report | {"curve": {"error": 2e-6}})


def test_noise_between_batches_is_measured_and_bounds_the_slope(pixels):
    noise = measure_noise([road("a"), road("b", per_image=1e-6)], pixels)
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
