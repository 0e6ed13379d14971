"""Every architecture goes out by the same path, and answers there as its checkpoint does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import numpy_helper

from detector import ImageSpec
from detector.manifest import Manifest
from detector.scorer import open_session, run_graph
from detector.tolerance import CURVE, HEATMAP, LOGIT, disagreement
from export import export_run
from export.archive import extract_archive
from export.graph import ScoringGraph
from export.onnx_model import save_model, scores_to_onnx, without_curve
from export.reduced.half import in_half
from export.reduced.int8 import Int8
from export.reduced.layers import find_layers
from export.reduced.search import logits, spread
from export.torchscript import load_torchscript
from tests.conftest import steep_curve, write_json
from tests.networks import SMALL, lived_in
from training.models.build import ModelConfig
from training.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.presets import PRESETS

pytestmark = pytest.mark.slow

SPEC = ImageSpec(size=64)


def exported(folder: Path, name: str) -> tuple[Checkpoint, Path, Manifest]:
    """A run of one of the small networks, and what export makes of it."""
    run, out = folder / "run", folder / "artifacts"
    run.mkdir()
    config = SMALL[name]
    arguments = {"model": config.name, "members": [str(folder / "one"), str(folder / "two")]}
    save_checkpoint(run / "best_model.pth", Checkpoint(config, SPEC, lived_in(config, SPEC).state_dict(), arguments))
    x, y = steep_curve()
    write_json(run / "calibration.json", {"method": "isotonic", "x": x, "y": y, "n": 200})
    return load_checkpoint(run / "best_model.pth"), out, export_run(run, out)


@pytest.fixture(scope="module")
def two_streams(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path, Manifest]:
    return exported(tmp_path_factory.mktemp("two"), "dual_stream")


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path, Manifest]:
    """Of a head with batch norm and a network whose feature map is finer."""
    return exported(tmp_path_factory.mktemp("ensemble"), "ensemble")


@pytest.fixture(scope="module")
def channel_pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path, Manifest]:
    """Of a network that enlarges the photo and pools the pairs of channels of three maps."""
    return exported(tmp_path_factory.mktemp("pairs"), "gram")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path, Manifest]:
    """Of a transformer."""
    return exported(tmp_path_factory.mktemp("tokens"), "tokens")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    coarse = np.random.default_rng(5).integers(0, 256, (6, 8, 8, 3))
    noise = np.random.default_rng(6).normal(0, 6, (6, 64, 64, 3))
    return (coarse.repeat(8, axis=1).repeat(8, axis=2) + noise).clip(0, 255).astype(np.uint8)


def assert_answers_as(checkpoint: Checkpoint, model: Path, images: np.ndarray) -> None:
    """The ONNX model's logit and heatmap are those of the network as it was trained."""
    net, spec = checkpoint.build(), checkpoint.image_spec
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    with torch.no_grad():
        x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
        expected, heat = (v.numpy() for v in net.logit_and_map(x))
    logit, heatmap = run_graph(open_session(model), images, ["logit", "heatmap"])
    assert np.ptp(expected) > 1e-2, "pictures must differ for this to mean something"
    assert not disagreement(logit, expected, LOGIT)
    assert not disagreement(heatmap, heat, HEATMAP)


@pytest.mark.parametrize("name", ["two_streams", "ensemble", "channel_pairs", "tokens"])
def test_the_export_answers_as_the_checkpoint(name: str, images: np.ndarray, request: pytest.FixtureRequest) -> None:
    checkpoint, out, manifest = request.getfixturevalue(name)
    assert_answers_as(checkpoint, out / "model.onnx", images)
    assert manifest.model.backbone == checkpoint.model_config.name
    assert {"onnx", "torchscript"} <= set(manifest.parity["logit"])
    assert max(d["fraction"] for name in ("logit", "heatmap") for d in manifest.parity[name].values()) <= 1


def test_linear_layers_on_tokens_take_fewer_bits_and_layer_norms_none(
    tokens: tuple[Checkpoint, Path, Manifest], images: np.ndarray
) -> None:
    _, out, _ = tokens
    model = without_curve(onnx.load(out / "model.onnx"))
    kinds = {node.name: node.op_type for node in model.graph.node}
    layers = find_layers(model)
    linear = [name for name in layers if kinds[name] == "MatMul"]
    blocks = timm.create_model("test_vit").blocks
    assert len(linear) == 4 * len(blocks), "query, key and value together, what joins the heads, and two of the MLP"
    assert [kinds[name] for name in layers if name not in linear] == ["Conv"]
    every = [name for nodes in layers.values() for name in nodes]
    assert {"LayerNormalization", "Softmax"}.isdisjoint({kinds[name] for name in every})
    before = logits(model, images)
    half, whole = in_half(model, every), Int8(model, images)(every)
    assert spread(logits(half, images), before, float(before.std())) < 0.05
    assert spread(logits(whole, images), before, float(before.std())) < 0.5
    stored = {tensor.name for tensor in whole.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    assert sum(any(name.endswith("_quantized") for name in node.input) for node in whole.graph.node) >= len(linear)
    assert len(stored) >= len(linear)


def test_constrained_kernels_go_out_as_plain_ones(two_streams: tuple[Checkpoint, Path, Manifest], tmp_path: Path) -> None:
    checkpoint, out, _ = two_streams
    net = checkpoint.build()
    kernels = net.features.forensic.bayar.weight.detach().numpy()
    graph = onnx.load(out / "model.onnx").graph
    constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    # In one convolution with the fixed ones, which come first.
    bank = [n for n, value in constants.items() if value.shape == (12, *kernels.shape[1:])]
    [name] = [n for n in bank if not disagreement(constants[n][-len(kernels) :], kernels, CURVE)]
    assert [node.op_type for node in graph.node if name in node.input] == ["Conv"]
    learned = next(v for k, v in checkpoint.weights.items() if "bayar" in k).numpy()
    assert not any(value.shape == learned.shape and np.allclose(value, learned) for value in constants.values())
    extract_archive(out / "detector-torchscript.mar", tmp_path)
    assert "parametrizations" not in str(load_torchscript(tmp_path / "model.pt").inlined_graph)
    before, x = net.state_dict(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = net(x)
        ScoringGraph(net, SPEC)
        assert torch.equal(net(x), expected), "the network that was given is left as it was"
    assert net.state_dict().keys() == before.keys()
    assert any("parametrizations" in key for key in before)


def test_an_ensemble_is_one_graph_with_one_curve(ensemble: tuple[Checkpoint, Path, Manifest], images: np.ndarray) -> None:
    _, out, manifest = ensemble
    raw, calibrated, heatmap = run_graph(open_session(out / "model.onnx"), images, ["raw_prob", "calibrated_prob", "heatmap"])
    assert not disagreement(calibrated, manifest.curve(raw), CURVE)
    assert heatmap.shape == (len(images), 3, 3)  # the finer member's
    assert manifest.training["arguments"]["members"] == ["one", "two"]  # not where they are


def test_a_resnet_with_batch_norm_in_its_head_goes_out(tmp_path: Path, images: np.ndarray) -> None:
    suits = PRESETS["resnet50"]
    assert suits.head_norm
    config = ModelConfig("test_resnet", suits.hidden, suits.dropout, suits.head_norm)
    net = lived_in(config)
    save_model(scores_to_onnx(ScoringGraph(net, SPEC), SPEC, 18), tmp_path / "model.onnx", {})
    assert_answers_as(Checkpoint(config, SPEC, net.state_dict()), tmp_path / "model.onnx", images)
