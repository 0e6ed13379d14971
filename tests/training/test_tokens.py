"""Backbones that work on tokens: their grid, the sizes that they take, and what is said of those that have none."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from detector import ImageSpec
from detector.errors import UnmaskError
from detector.tolerance import LOGIT, disagreement
from tests.networks import photos
from tests.training.test_models import assert_map_is_grad_cam
from training.errors import UnfitSize, UnknownModel
from training.models.backbones import backbone
from training.models.build import ModelConfig, build_model
from training.presets import preset


def net(name: str, size: int, **config: object):
    """A network with random weights and a head of 8, in eval mode."""
    torch.manual_seed(3)
    return build_model(ModelConfig(name, hidden=(8,), **config), ImageSpec(size=size)).eval()


@pytest.mark.parametrize(
    ("name", "size", "side", "config"),
    [
        ("test_vit", 64, 4, {}),
        ("test_vit3", 96, 6, {}),  # takes no size but the one that it is built for
        ("test_vit3", 64, 6, {"zoom": 1.5}),
        ("test_mambaout", 96, 3, {}),  # its maps are [N, h, w, C]
        ("test_vit", 64, 4, {"multiscale": True}),
        ("test_vit", 64, 4, {"multiscale": True, "gram": (2,)}),
        ("test_mambaout", 96, 3, {"multiscale": True}),
    ],
)
def test_the_heatmap_of_a_grid_of_tokens_is_grad_cam_by_autograd(name: str, size: int, side: int, config: dict) -> None:
    network = net(name, size, **config)
    assert_map_is_grad_cam(network, photos(3, size))
    with torch.no_grad():
        assert network.logit_and_map(photos(2, size))[1].shape == (2, side, side)


def test_the_grid_has_each_patch_where_it_is_in_the_photo_and_no_other_token() -> None:
    features, channels = backbone("test_vit", size=64)
    model, x = features.eval().model, photos(2)
    with torch.no_grad():
        grid, tokens = features(x), model.forward_features(x)
    assert (channels, grid.shape) == (64, (2, 64, 4, 4))
    assert model.num_prefix_tokens == 1
    assert not disagreement(grid[:, :, 1, 2], tokens[:, 1 + 1 * 4 + 2], LOGIT)


def test_each_place_of_the_map_adds_its_part_to_the_logit_of_a_linear_head() -> None:
    torch.manual_seed(3)
    network = build_model(ModelConfig("test_vit", hidden=()), ImageSpec(size=64)).eval()
    with torch.no_grad():
        logit, heat = network.logit_and_map(photos(3))
        assert not disagreement(heat.sum(dim=(1, 2)) + network.head[-1].bias, logit, LOGIT)


@pytest.mark.parametrize(
    ("name", "size"), [("eva02_tiny_patch14_224", 56), ("test_vit2", 64), ("deit_tiny_distilled_patch16_224", 64)]
)
def test_what_normalises_after_pooling_normalises_the_patches(name: str, size: int) -> None:
    """Its weights are named as in timm's own network, so that timm's files of weights fit."""
    features, _ = backbone(name, size=size)
    theirs = timm.create_model(name, num_classes=0, img_size=size).state_dict()
    ours = features.model.state_dict()
    assert {k for k in theirs if not k.startswith("attn_pool.")} == set(ours)
    with torch.no_grad():
        grid = features.eval()(photos(2, size))
    assert float(grid.mean(dim=1).abs().amax()) < 1e-5, "the last thing that each patch goes through is a layer norm"


def test_timms_own_file_of_weights_goes_in_at_another_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    donor = timm.create_model("test_vit3")
    torch.save(donor.state_dict(), tmp_path / "hub.pth")
    create = timm.create_model

    def with_file(*args: object, pretrained: bool = False, **more: object):
        overlay = {"pretrained_cfg_overlay": {"file": str(tmp_path / "hub.pth")}} if pretrained else {}
        return create(*args, pretrained=pretrained, **overlay, **more)

    monkeypatch.setattr(timm, "create_model", with_file)
    features, _ = backbone("test_vit3", size=96, pretrained=True)
    assert torch.equal(features.model.blocks[0].attn.qkv.weight, donor.blocks[0].attn.qkv.weight)
    assert features.model.pos_embed.shape != donor.pos_embed.shape


@pytest.mark.parametrize(
    ("name", "size", "error", "words"),
    [
        ("test_vit", 100, UnfitSize, "give --size 96, 112 or 160"),
        ("vit_small_patch14_dinov2", 128, UnfitSize, "the last 2 px would not be seen.*--size 126, 140 or 518"),
        ("pit_ti_224", 128, UnknownModel, "one token for the whole photo.*others do: vit_tiny_patch16_224"),
        ("crossvit_tiny_240", 240, UnknownModel, "several sets of tokens.*others do"),
        ("torchvision/vit_b_16", 224, UnknownModel, "timm's vit_base_patch16_224 is the same network"),
        ("no_such_net", 224, UnknownModel, "neither in timm nor in torchvision"),
    ],
)
def test_what_can_not_work_says_why_and_what_does(name: str, size: int, error: type[UnmaskError], words: str) -> None:
    with pytest.raises(error, match=words):
        backbone(name, size=size)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("swin_tiny_patch4_window7_224", 224),
        ("swinv2_tiny_window8_256.ms_in1k", 256),
        ("vit_small_patch14_dinov2", 224),
        ("regnety_160", 128),
        ("efficientnet_b0", 128),
        ("mobilenetv3_small_050", 128),
    ],
)
def test_a_name_that_says_its_size_gives_the_default(name: str, size: int) -> None:
    assert preset(name).size == size


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision/swin_t", "swin_tiny_patch4_window7_224"])
def test_windows_give_a_map_too(name: str) -> None:
    network = net(name, 64)
    assert_map_is_grad_cam(network, photos(2))
    assert network.head[1].in_features == 768
