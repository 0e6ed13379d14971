"""Both engines give one answer, and nothing is loaded that the archive's manifest does not vouch for."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from detector import FileError, decode_image
from detector.scorer import Scorer
from detector.tolerance import HEATMAP, LOGIT, PROBABILITY, disagreement
from handlers.engine import OnnxEngine, TorchScriptEngine, load_engine


@pytest.fixture(scope="module")
def images(photos, onnx_engine):
    return np.stack([decode_image(p, onnx_engine.manifest.image_spec) for p in photos])


def test_the_archive_decides_which_engine_runs(onnx_engine, torchscript_engine):
    assert isinstance(onnx_engine, OnnxEngine)
    assert isinstance(torchscript_engine, TorchScriptEngine)


def test_both_engines_give_the_local_scorers_scores(images, artifacts, onnx_engine, torchscript_engine):
    logit, raw_prob, calibrated_prob = Scorer(artifacts / "model.onnx", threads=1).scores(images)
    for engine in (onnx_engine, torchscript_engine):
        scores = engine.run(images)
        assert not disagreement(scores.logit, logit, LOGIT)
        assert not disagreement(scores.raw_prob, raw_prob, PROBABILITY)
        assert not disagreement(scores.calibrated_prob, calibrated_prob, PROBABILITY)
        assert all(s.dtype == np.float32 and s.shape == (len(images),) for s in scores[:3])


def test_the_heatmap_comes_only_when_asked_for(images, onnx_engine, torchscript_engine):
    maps = []
    for engine in (onnx_engine, torchscript_engine):
        assert engine.run(images[:2]).heatmap is None
        maps.append(engine.run(images[:2], heatmap=True).heatmap)
    assert maps[0].ndim == 3
    assert maps[0].shape[0] == 2
    assert not disagreement(maps[0], maps[1], HEATMAP)


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_a_changed_model_is_refused_before_it_is_opened(kind, archives, tmp_path):
    folder = shutil.copytree(archives[kind], tmp_path / "model")
    model = next(folder.glob("model.*"))
    with model.open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff\x00\xff")
    with pytest.raises(FileError, match=rf"{model.name}: SHA-256"):
        load_engine(folder)


def test_an_archive_with_two_models_or_none_is_refused(archives, tmp_path):
    folder = shutil.copytree(archives["onnx"], tmp_path / "two")
    shutil.copy(archives["torchscript"] / "model.pt", folder)
    with pytest.raises(FileError, match="holds 2"):
        load_engine(folder)
    for model in folder.glob("model.*"):
        model.unlink()
    with pytest.raises(FileError, match="holds 0"):
        load_engine(folder)


def test_an_absent_gpu_is_named(archives):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    for kind in ("onnx", "torchscript"):
        with pytest.raises(FileError, match="cuda"):
            load_engine(archives[kind], device="cuda:0")


def test_tensorrt_is_for_onnx_models(archives):
    with pytest.raises(FileError, match="device tensorrt runs ONNX models only; use --device cuda"):
        load_engine(archives["torchscript"], device="tensorrt:0")


def test_the_onnx_archive_imports_no_torch(archives):
    program = (
        "import sys, pathlib; from handlers.service import Service; from handlers.engine import load_engine;"
        f"load_engine(pathlib.Path({str(archives['onnx'])!r}), threads=1); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
