"""Architectures: what each is made of, and that its heatmap is the gradient it says it is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.tolerance import HEATMAP, LOGIT, disagreement
from tests.networks import SMALL, lived_in, photos
from training.models.build import ModelConfig
from training.models.gram import GramNet
from training.models.networks import DetectorNet, DualStreamNet, EnsembleNet, PooledNet
from training.presets import PRESETS


def of(name: str) -> ModelConfig:
    """The config that `fit --model NAME` trains by default."""
    suits = PRESETS[name]
    return ModelConfig(name, suits.hidden, suits.dropout, suits.head_norm)


def grad_cam(net: DetectorNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logit and Grad-CAM as their definitions say, by autograd."""
    if isinstance(net, EnsembleNet):
        pairs = [grad_cam(member, x) for member in net.members]
        if net.mirror:
            pairs += [(logit, heat.flip(2)) for logit, heat in (grad_cam(member, x.flip(3)) for member in net.members)]
        logits, maps = zip(*pairs, strict=True)
        size = tuple(torch.tensor([m.shape[1:] for m in maps]).amax(dim=0).tolist())
        alike = [F.interpolate(m[:, None], size, mode="bilinear", align_corners=False)[:, 0] for m in maps]
        return sum(logits) / len(logits), sum(alike) / len(alike)
    assert isinstance(net, PooledNet)
    if isinstance(net, GramNet):
        return gram_cam(net, x)
    maps = net.features(net.zoomed(x)).detach().requires_grad_()
    logit = net.head(maps.mean(dim=(2, 3))).squeeze(1)
    (gradient,) = torch.autograd.grad(logit.sum(), maps)
    return logit.detach(), (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1).detach()


def gram_cam(net: GramNet, x: Tensor) -> tuple[Tensor, Tensor]:
    """Grad-CAM with all products of two channels as channels of their own, which is what the head pools."""
    maps = [each.detach() for each in net.features.maps(net.zoomed(x))]
    wide, pooled = [], []
    for gram, each in zip(net.grams, maps, strict=True):
        some = each[:, :: max(1, gram.channels // gram.taken)][:, : gram.taken] if gram.taken else each[:, :0]
        pairs = [some[:, i] * some[:, j] for i in range(gram.taken) for j in range(i, gram.taken)]
        wide.append(torch.stack([*each.unbind(1), *pairs], dim=1).requires_grad_())
        means = wide[-1].mean(dim=(2, 3))
        plain, products = means[:, : gram.channels], means[:, gram.channels :]
        pooled.append(torch.cat([plain, products.sign() * ((products.abs() + 1e-6).sqrt() - 1e-3)], dim=1))
    logit = net.head(torch.cat(pooled, dim=1)).squeeze(1)
    gradients = torch.autograd.grad(logit.sum(), wide)
    heat = [(g.sum(dim=(2, 3), keepdim=True) * w).sum(dim=1, keepdim=True) for g, w in zip(gradients, wide, strict=True)]
    height, width = heat[-1].shape[2:]
    alike = [F.avg_pool2d(h, h.shape[2] // height)[:, 0, :height, :width] for h in heat]
    return logit.detach(), (sum(alike) / (height * width)).detach()


def assert_map_is_grad_cam(net: DetectorNet, x: Tensor) -> None:
    """The closed form gives the logit of `forward`, and autograd's map to five digits."""
    with torch.no_grad():
        logit, heatmap = net.logit_and_map(x)
        straight = net(x)
    expected_logit, expected = grad_cam(net, x)
    assert not disagreement(logit, straight, LOGIT)
    assert not disagreement(logit, expected_logit, LOGIT)
    assert heatmap.shape == expected.shape
    assert expected.abs().amax() > 1e-4
    assert not disagreement(heatmap, expected, HEATMAP)


@pytest.mark.parametrize("name", SMALL)
def test_the_heatmap_is_grad_cam_by_autograd(name: str) -> None:
    assert_map_is_grad_cam(lived_in(SMALL[name]), photos(4, 96))


ONE, TWO = ["Dropout", "Linear"], ["Dropout", "Linear", "ReLU"]
NORMED = ["Dropout", "Linear", "BatchNorm1d", "ReLU"]


@pytest.mark.parametrize(
    ("name", "millions", "dropout", "layers"),
    [
        ("efficientnet_b0", 4.34, 0.2, [*TWO, *ONE]),
        ("resnext50_32x4d", 22.98, 0.2, ONE),
        ("resnet50", 24.62, 0.3, [*NORMED, *NORMED, *ONE]),
        ("dual_stream", 3.38, 0.2, [*TWO, *ONE]),
    ],
)
def test_each_architecture_by_its_name_alone(name: str, millions: float, dropout: float, layers: list[str]) -> None:
    net = lived_in(of(name))
    assert isinstance(net, PooledNet)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)
    for head in (net.head.visual, net.head.forensic) if isinstance(net, DualStreamNet) else (net.head,):
        assert [type(layer).__name__ for layer in head] == layers
        assert {layer.p for layer in head if isinstance(layer, nn.Dropout)} == {dropout}
    assert_map_is_grad_cam(net, photos(2))


def test_a_config_survives_its_checkpoint_members_and_all() -> None:
    nested = ModelConfig("ensemble", (), 0, members=(SMALL["ensemble"], SMALL["dual_stream"]))
    assert ModelConfig.from_dict(json.loads(json.dumps(nested.to_dict()))) == nested


def test_an_ensemble_answers_the_mean_logit_on_a_map_as_fine_as_its_finest() -> None:
    net = lived_in(SMALL["ensemble"])
    assert isinstance(net, EnsembleNet)
    x = photos(4, 96)
    with torch.no_grad():
        alone = [member.logit_and_map(x) for member in net.members]
        logit, heatmap = net.logit_and_map(x)
    assert not disagreement(logit, (alone[0][0] + alone[1][0]) / 2, LOGIT)
    sizes = {heat.shape[1] for _, heat in alone}
    assert len(sizes) == 2
    assert heatmap.shape[1] == max(sizes)


def test_a_mirrored_ensemble_gives_a_photo_and_its_mirror_image_one_logit_and_mirrored_maps() -> None:
    net, x = lived_in(SMALL["ensemble, mirrored"]), photos(4, 96)
    with torch.no_grad():
        (logit, heatmap), (turned, turned_map) = net.logit_and_map(x), net.logit_and_map(x.flip(3))
        plain = lived_in(SMALL["ensemble"])(x)
    assert not disagreement(logit, turned, LOGIT)
    assert not disagreement(heatmap, turned_map.flip(2), HEATMAP)
    assert disagreement(logit, plain, LOGIT)


@pytest.mark.parametrize("name", ["every resolution", "every resolution, timm"])
def test_the_head_sees_every_resolution(name: str) -> None:
    shallow, deep = (lived_in(replace(SMALL[name], multiscale=m)) for m in (False, True))
    x = photos(2, 96)
    with torch.no_grad():
        last, every = shallow.features(x), deep.features(x)
    assert every.shape[2:] == last.shape[2:]
    assert every.shape[1] > last.shape[1]
    head = next(layer for layer in deep.head if isinstance(layer, nn.Linear))
    assert head.in_features == every.shape[1]
