"""int8 and float16: as near to float32 as the labelled photos say, or not written at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.metrics import roc_auc_score

from detector import Manifest, decode_image
from detector.scorer import Scorer, open_session
from detector.tolerance import CURVE, LOGIT, PROBABILITY, disagreement
from export import PrecisionError, export_run
from export.archive import extract_archive
from export.reduced import precision
from export.reduced.half import in_half
from export.reduced.int8 import Int8
from export.reduced.layers import find_layers
from export.reduced.search import Search, logits
from handlers.engine import load_engine
from tests.conftest import encode, write_json, write_run
from tests.serve.running import RunningServer
from training.models.checkpoint import load_checkpoint, save_checkpoint
from unmask.__main__ import main

pytestmark = pytest.mark.slow

PARTS = {"Train": 64, "Validation": 20}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled folder with just enough photos: smooth ones are real, grainy ones fake."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(1)
    for part, count in PARTS.items():
        for name, grain in (("Real", 2), ("Fake", 25)):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                colours = rng.integers(30, 226, (4, 4, 3)).repeat(12, axis=0).repeat(12, axis=1)
                pixels = (colours + rng.normal(0, grain, colours.shape)).clip(0, 255).astype(np.uint8)
                (folder / part / name / f"{i:02d}.png").write_bytes(encode(pixels))
    return folder


def decoded(data: Path, part: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    from detector import ImageSpec

    files = [(file, label) for label, name in enumerate(("Real", "Fake")) for file in sorted((data / part / name).iterdir())]
    pixels = np.stack([decode_image(file.read_bytes(), ImageSpec(size=size)) for file, _ in files])
    return pixels, np.array([label for _, label in files])


@pytest.fixture(scope="module")
def seeing_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that tells the two kinds apart: a small random network whose last layer is fitted to them."""
    folder = tmp_path_factory.mktemp("seeing")
    photos = [file.read_bytes() for file in sorted((data / "Train").rglob("*.png"))]
    write_run(folder, "test_resnet", photos, hidden=(), size=48)
    checkpoint = load_checkpoint(folder / "best_model.pth")
    net, spec = checkpoint.build(), checkpoint.image_spec
    pixels, labels = decoded(data, "Train", 48)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    with torch.no_grad():
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
        pooled = net.features(x).mean(dim=(2, 3)).double()
    centred, wanted = pooled - pooled.mean(0), torch.from_numpy(labels * 4.0 - 2)
    ridge = centred.T @ centred + 0.05 * len(pooled) * torch.diag(centred.var(0) + 1e-9)
    weight = torch.linalg.solve(ridge, centred.T @ wanted)
    head = {"weight": weight[None].float(), "bias": -(pooled.mean(0) @ weight)[None].float()}
    weights = {k: head[k.split(".")[-1]] if k.startswith("head.") else v for k, v in checkpoint.weights.items()}
    save_checkpoint(folder / "best_model.pth", replace(checkpoint, weights=weights, arguments={"data": str(data)}))
    return folder


@pytest.fixture(scope="module")
def reduced(seeing_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with both, chosen on the photos that the run names."""
    out = tmp_path_factory.mktemp("reduced") / "artifacts"
    assert main(["export", "--run", str(seeing_run), "--out", str(out), "--precision", "int8", "fp16"]) == 0
    return out


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_the_manifest_says_what_fewer_bits_cost_and_the_model_bears_it_out(kind, reduced, data):
    pixels, labels = decoded(data, "Validation", 48)
    manifest = Manifest.load(reduced / "manifest.json")
    told = manifest.precision[kind]
    full, fewer = Scorer(reduced / "model.onnx"), Scorer(reduced / f"model.{kind}.onnx")
    (logit, raw, _), (moved, moved_raw, calibrated) = full.scores(pixels), fewer.scores(pixels)
    error = np.sqrt(np.mean((moved - logit) ** 2)) / logit.std()
    assert 0 < error == pytest.approx(told["logit_error"]["judged"], rel=1e-3)
    assert error < 3 * told["logit_error"]["limit"]
    assert roc_auc_score(labels, raw) > 0.95, "the network must tell the classes apart for this to mean something"
    assert told["auc"] == {"float32": roc_auc_score(labels, logit), kind: roc_auc_score(labels, moved)}
    assert not disagreement(calibrated, manifest.curve(moved_raw), CURVE)
    assert not disagreement(moved_raw, 1 / (1 + np.exp(-moved.astype(np.float64))), CURVE)  # not through float16
    assert told["photos"] == {"ranges": 64, "layers": 64, "judged": 40, "held_out": True}
    assert told["bytes"] == (reduced / f"model.{kind}.onnx").stat().st_size
    heatmaps = full.heatmaps(pixels[:4])
    assert fewer.heatmaps(pixels[:4]) == pytest.approx(heatmaps, abs=0.3 * float(np.abs(heatmaps).max()))


def test_int8_layers_run_on_integers_and_the_rest_on_floats(reduced):
    graph = onnx.load(reduced / "model.int8.onnx").graph
    made_by = {name: node for node in graph.node for name in node.output}
    told = Manifest.load(reduced / "manifest.json").precision["int8"]["layers"]
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    on_integers = [n for n in convolutions if all(made_by[name].op_type == "DequantizeLinear" for name in n.input[:2])]
    floats = {name for kept in told["float32"].values() for name in kept}
    assert len(on_integers) == told["reduced"] > len(convolutions) / 2
    assert {n.name for n in convolutions} - {n.name for n in on_integers} == floats
    scales = [numpy_helper.to_array(t).size for t in graph.initializer if t.name.endswith("_scale") and "weight" in t.name]
    assert max(scales) > 1, "one scale for each output channel"


def test_one_photo_gets_one_int8_answer_whatever_batch_it_travels_in(reduced, data):
    pixels, _ = decoded(data, "Validation", 48)
    scorer = Scorer(reduced / "model.int8.onnx")
    alone = np.concatenate([scorer.scores(p[None])[2] for p in pixels])
    for batch in (2, 7, 40):
        together = np.concatenate([scorer.scores(pixels[i : i + batch])[2] for i in range(0, len(pixels), batch)])
        assert not disagreement(together, alone, PROBABILITY)


def test_artifacts_with_fewer_bits_are_verified_whole(reduced, tmp_path, capsys):
    assert main(["verify", str(reduced), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"model.int8.onnx", "detector-int8.mar", "model.fp16.onnx", "detector-fp16.mar"} <= set(report["checks"])
    assert set(report["parity"]["precision"]) == {"int8", "fp16"}
    broken = Path(shutil.copytree(reduced, tmp_path / "broken"))
    (broken / "model.int8.onnx").unlink()
    assert main(["verify", str(broken)]) == 1
    assert "\n  model.int8.onnx: is missing" in capsys.readouterr().out


def test_recalibration_reaches_the_models_of_fewer_bits(reduced, seeing_run, data, tmp_path, capsys):
    folder, run = (Path(shutil.copytree(a, tmp_path / b)) for a, b in ((reduced, "artifacts"), (seeing_run, "run")))
    write_json(run / "calibration.json", {"method": "platt", "x": [0, 0.5, 1], "y": [0.1, 0.2, 0.95], "n": 300})
    assert main(["recalibrate", str(folder), "--run", str(run)]) == 0
    pixels, _ = decoded(data, "Validation", 48)
    for kind in ("int8", "fp16"):
        (logit, raw, calibrated), (before, _, _) = (Scorer(f / f"model.{kind}.onnx").scores(pixels) for f in (folder, reduced))
        np.testing.assert_array_equal(logit, before)
        assert not disagreement(calibrated, np.interp(raw, [0, 0.5, 1], [0.1, 0.2, 0.95]), CURVE)
    capsys.readouterr()
    assert main(["verify", str(folder)]) == 0


def test_an_export_of_float32_alone_takes_the_others_away(reduced, seeing_run, tmp_path):
    folder = Path(shutil.copytree(reduced, tmp_path / "artifacts"))
    export_run(seeing_run, folder)
    assert {p.name for p in folder.iterdir()} == {
        "model.onnx", "manifest.json", "detector-onnx.mar", "detector-torchscript.mar",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_the_archive_holds_that_model_alone_and_an_engine_loads_it(kind, reduced, data, tmp_path):
    extract_archive(reduced / f"detector-{kind}.mar", tmp_path)
    assert [p.name for p in tmp_path.glob("model.*")] == [f"model.{kind}.onnx"]
    pixels, _ = decoded(data, "Validation", 48)
    scores = load_engine(tmp_path, threads=1).run(pixels[:8])
    assert scores.logit == pytest.approx(Scorer(reduced / f"model.{kind}.onnx").scores(pixels[:8])[0], abs=1e-2)


@pytest.mark.serve
def test_the_int8_archive_is_served(reduced, data, tmp_path):
    photo = next((data / "Validation" / "Fake").iterdir()).read_bytes()
    server = RunningServer(reduced, tmp_path, "--archive", "int8", "--workers", "1", "--threads", "1")
    try:
        answer = server.await_ready().predict(photo)
    finally:
        server.stop()
    expected = Scorer(reduced / "model.int8.onnx").score(photo)
    assert answer["prediction"] == expected.prediction
    assert not disagreement(answer["logit"], expected.logit, LOGIT)


def test_an_auc_that_moves_too_far_is_refused_and_leaves_what_was_there(seeing_run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "AUC_LIMIT", -1.0)
    with pytest.raises(PrecisionError, match="moves the AUC of 40 photos"):
        export_run(seeing_run, tmp_path / "out", precisions=["int8"])
    assert not list(tmp_path.iterdir())


def test_without_labelled_photos_or_with_too_few_fewer_bits_are_refused_in_one_line(
    run_dir, seeing_run, data, tmp_path, capsys
):
    few = tmp_path / "few"
    for part in PARTS:
        for name in ("Real", "Fake"):
            (few / part / name).mkdir(parents=True)
            for file in sorted((data / part / name).iterdir())[:12]:
                shutil.copy(file, few / part / name)
    command = ["--out", str(tmp_path / "out"), "--precision", "int8"]
    for arguments, said in (
        (["--run", str(run_dir)], "name some with --data"),
        (["--run", str(seeing_run), "--data", str(few)], "24 and 12 can be decoded"),
        (["--run", str(seeing_run), "--data", str(tmp_path)], "expected DIR/"),
    ):
        assert main(["export", *arguments, *command]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def four_convolutions(gap: float = 1000) -> onnx.ModelProto:
    """Photos through `wide`, `narrow`, `third` and `fourth` to a logit. What `wide` hands on is in a channel `gap` times
    smaller than the one beside it, which `narrow` does not look at: one scale for both leaves nothing of it."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32)
    wide, narrow = np.zeros((2, 3, 1, 1), np.float32), np.zeros((4, 2, 1, 1), np.float32)
    wide[0, 0], wide[1, 1:], narrow[:, 1, 0, 0] = gap, 1, (1, -1, 0.5, 2)
    weights = {
        "w_wide": wide, "w_narrow": narrow, "w_third": mixed, "w_fourth": mixed[::-1].copy(),
        "scale": np.float32(1 / 255), "last": rng.normal(0, 1, (4, 1)).astype(np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Transpose", ["images"], ["bytes"], name="turn", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["bytes"], ["floats"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["x0"], name="normalise"),
    ]
    for i, name in enumerate(("wide", "narrow", "third", "fourth")):
        nodes.append(helper.make_node("Conv", [f"x{i}", f"w_{name}"], [f"x{i + 1}"], name=name))
    nodes += [
        helper.make_node("Relu", ["x4"], ["maps"], name="rectify"),
        helper.make_node("ReduceMean", ["maps", "axes"], ["pooled"], name="pool", keepdims=0),
        helper.make_node("MatMul", ["pooled", "last"], ["column"], name="head"),
        helper.make_node("Squeeze", ["column", "one"], ["logit"], name="squeeze"),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    constants += [numpy_helper.from_array(np.array(v, np.int64), n) for n, v in (("axes", [2, 3]), ("one", [1]))]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 16, 16, 3])
    logit = helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph(nodes, "four", [images], [logit], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    tints = np.random.default_rng(3).integers(0, 200, (64, 1, 1, 3))
    return (tints + np.random.default_rng(4).integers(0, 56, (64, 16, 16, 3))).astype(np.uint8)


def test_layers_are_convolutions_with_what_lies_between_them():
    layers = find_layers(four_convolutions())
    assert layers == {"wide": ["wide"], "narrow": ["narrow"], "third": ["third"], "fourth": ["fourth", "rectify"]}


def test_the_layers_that_hurt_stay_float_and_no_others(pixels):
    model = four_convolutions()
    choice = Search(model, Int8(model, pixels), pixels, 0.05).run(timed=False)
    assert choice.kept_for_accuracy == ("wide", "narrow")
    assert choice.reduced == ("third", "fourth")
    assert choice.error <= 0.05 < choice.error_of_all


def test_a_float_layer_between_integer_ones_is_computed_in_float(pixels):
    """ONNX Runtime would round its weights to integers, with one scale for all of them."""
    mixed = Int8(four_convolutions(gap=1), pixels)(["narrow", "fourth"]).SerializeToString()
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = onnxruntime.InferenceSession(mixed, plain), onnxruntime.InferenceSession(mixed), open_session(mixed)
    literal, rounded, found = (session.run(["logit"], {"images": pixels})[0] for session in sessions)
    assert np.abs(rounded - literal).max() > 0, "ONNX Runtime must round for this to mean something"
    assert np.abs(found - literal).max() < np.abs(rounded - literal).max() / 3


def test_what_passes_between_float32_nodes_never_passes_through_float16(pixels):
    model = four_convolutions()
    half = onnx.shape_inference.infer_shapes(in_half(model, ["third", "fourth", "rectify"]), strict_mode=True)
    onnx.checker.check_model(half, full_check=True)
    types = {v.name: v.type.tensor_type.elem_type for v in half.graph.value_info}
    assert {n for n, t in types.items() if t == TensorProto.FLOAT16} == {"x2_half", "x3_half", "x4_half", "maps_half"}
    error = logits(half, pixels) - logits(model, pixels)
    assert 0 < np.abs(error).max() < 5e-3 * logits(model, pixels).std()
    assert (logits(in_half(model, []), pixels) == logits(model, pixels)).all()
