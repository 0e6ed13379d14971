"""The forensic stream: residuals in grey levels, a constraint that training can't break, and a gate that can be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch import Tensor

from detector import ImageSpec
from detector.errors import UsageError
from detector.tolerance import LOGIT, disagreement
from tests.training.conftest import fit
from training.data.loader import normalise
from training.models.build import ModelConfig, build_model
from training.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.models.forensic import BayarConstraint, ForensicStream, srm_kernels
from training.models.networks import DualStreamNet
from training.models.weights import initial_model

CONFIG = ModelConfig("dual_stream", hidden=(8,))


def pixels(count: int = 4, size: int = 32) -> Tensor:
    """Soft patches with noise, uint8[N, 3, H, W]."""
    rng = np.random.default_rng(0)
    soft = rng.integers(30, 226, (count, 3, size // 8, size // 8)).repeat(8, axis=2).repeat(8, axis=3)
    return torch.from_numpy((soft + rng.normal(0, 2, soft.shape)).clip(0, 255).astype(np.uint8))


def assert_constrained(kernels: Tensor) -> None:
    middle = kernels.shape[-1] // 2
    assert kernels.dtype == torch.float32
    assert torch.equal(kernels[..., middle, middle], -torch.ones_like(kernels[..., middle, middle]))
    assert kernels.sum(dim=(2, 3)).abs().max() < 1e-5  # the rest sums to 1


@pytest.mark.parametrize("spec", [ImageSpec(), ImageSpec(mean=(0.1, 0.5, 0.7), std=(0.2, 0.3, 0.4))])
def test_srm_residuals_are_those_of_the_grey_levels_however_photos_are_normalised(spec: ImageSpec) -> None:
    images = pixels()
    found = ForensicStream(spec).residuals(normalise(images, spec))[:, :9].detach().numpy()
    of_one = [
        correlate(channel.astype(np.float64), kernel, mode="mirror").clip(-3, 3)
        for image in images.numpy()
        for channel in image
        for kernel in srm_kernels().numpy()
    ]
    expected = np.stack(of_one).reshape(found.shape)
    assert found == pytest.approx(expected, abs=1e-3)
    assert (np.abs(expected) == 3).any()
    assert (np.abs(expected) < 2.9).mean() > 0.3


def test_residuals_are_whole_under_mixed_precision() -> None:
    stream, x = ForensicStream(ImageSpec()), normalise(pixels(), ImageSpec())
    exact = stream.residuals(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(stream.residuals(x), exact)
        assert torch.isfinite(stream(x)).all()


@pytest.mark.slow
@pytest.mark.parametrize("amp", ["no", "auto"])
def test_the_constraint_holds_after_training(tiny_set: Path, tmp_path: Path, amp: str) -> None:
    arguments = ["--model", "dual_stream", "--hidden", 8, "--no-pretrained", "--size", 32, "--batch-size", 16, "--epochs", 1,
                 "--lr", 3e-3, "--device", "cpu", "--workers", 0, "--amp", amp, "--calibration", "platt"]  # fmt: skip
    assert fit("--data", tiny_set, "--out", tmp_path / "run", *arguments) == 0
    trained = load_checkpoint(tmp_path / "run" / "best_model.pth").build().features.forensic
    torch.manual_seed(0)
    before = build_model(CONFIG).features.forensic
    assert_constrained(trained.bayar.weight)
    assert (trained.bayar.weight - before.bayar.weight).abs().max() > 1e-3
    assert torch.equal(trained.bank, before.bank)


def test_the_constraint_holds_and_learns_where_weights_cancel_out() -> None:
    weight = torch.randn(5, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 0.1
    weight[0] = 0
    weight[1] -= weight[1].mean(dim=(1, 2), keepdim=True)
    weight[2] = -1
    weight.requires_grad_()
    kernels = BayarConstraint()(weight)
    assert_constrained(kernels)
    (kernels * torch.randn_like(kernels)).sum().backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()
    assert kernels.abs().max() < 20


def test_the_gate_says_whose_logit_it_is() -> None:
    torch.manual_seed(0)
    net = build_model(CONFIG).eval()
    assert isinstance(net, DualStreamNet)
    x = normalise(pixels(size=64), ImageSpec())
    with torch.no_grad():
        assert net.gate(x).tolist() == [0.5] * 4
        net.head.gate.weight.normal_()
        assert net.gate(x).unique().numel() == 4
        pooled = net.features(x).mean(dim=(2, 3))
        visual, forensic = pooled.split(net.head.widths, dim=1)
        for bias, alone in ((100.0, net.head.visual(visual)), (-100.0, net.head.forensic(forensic))):
            net.head.gate.weight.zero_()
            net.head.gate.bias.fill_(bias)
            assert not disagreement(net(x), alone.squeeze(1), LOGIT)
            assert net.gate(x)[0] == pytest.approx(float(bias > 0), abs=1e-6)


def test_a_mobilenets_weights_go_into_the_visual_stream_and_its_own_into_both(tmp_path: Path) -> None:
    mobile, own = build_model(ModelConfig("mobilenetv2_100", (8,))), build_model(CONFIG)
    for name, config, net in (("mobile.pth", ModelConfig("mobilenetv2_100", (8,)), mobile), ("own.pth", CONFIG, own)):
        save_checkpoint(tmp_path / name, Checkpoint(config, ImageSpec(), net.state_dict()))
    torch.save(mobile.features.model.state_dict(), tmp_path / "hub.pth")

    def same(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
        return all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))

    for name in ("mobile.pth", "hub.pth"):
        net = initial_model(CONFIG, weights=str(tmp_path / name), pretrained=True)
        assert same(net.features.visual, mobile.features)
        assert not same(net.features.forensic, own.features.forensic)
    net = initial_model(CONFIG, weights=str(tmp_path / "own.pth"), pretrained=True)
    assert same(net.features, own.features)
    assert not same(net.head, own.head)
    torch.save(build_model(ModelConfig("test_resnet")).state_dict(), tmp_path / "other.pth")
    with pytest.raises(UsageError, match="or mobilenetv2_100"):
        initial_model(CONFIG, weights=str(tmp_path / "other.pth"), pretrained=True)
