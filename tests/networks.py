"""Networks for tests: small ones of every kind, with weights as training leaves them."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector import ImageSpec
from training.models.build import ModelConfig, build_model
from training.models.networks import DetectorNet, DualStreamNet

SMALL = {
    "linear head": ModelConfig("test_resnet", hidden=()),
    "batch norm": ModelConfig("test_resnet", hidden=(24, 12), head_norm=True),
    "dual_stream": ModelConfig("dual_stream", hidden=(16,)),
    "every resolution": ModelConfig("torchvision/squeezenet1_1", hidden=(16,), multiscale=True),
    "gram": ModelConfig("torchvision/squeezenet1_1", hidden=(16,), multiscale=True, gram=(1, 4, 5), zoom=1.5),
    "gram, timm": ModelConfig("test_resnet", hidden=(16,), multiscale=True, gram=(2,)),
    "every resolution, timm": ModelConfig("test_resnet", hidden=(16,), multiscale=True),
    "tokens": ModelConfig("test_vit", hidden=(16,)),
    "dual_stream, batch norm": ModelConfig("dual_stream", hidden=(16, 8), head_norm=True),
}
# Of members whose feature maps differ in size.
SMALL["ensemble"] = ModelConfig(
    "ensemble", (), 0, members=(SMALL["batch norm"], ModelConfig("torchvision/squeezenet1_1", (8,)))
)
SMALL["ensemble, mirrored"] = replace(SMALL["ensemble"], mirror=True)


def lived_in(config: ModelConfig, spec: ImageSpec | None = None) -> DetectorNet:
    """A network as training leaves it: no weight, mean or variance is still what it is set to at first."""
    torch.manual_seed(3)
    net = (build_model(config, spec) if spec else build_model(config)).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # the statistics of exactly what comes next
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    with torch.no_grad():
        net(photos(16, spec.size) if spec else photos(16))
        for module in net.modules():
            if isinstance(module, DualStreamNet):
                module.head.gate.weight.normal_(std=0.05)
    return net.eval()


def photos(count: int, size: int = 64) -> Tensor:
    """Normalised noise, soft and hard: float32[N, 3, H, W]."""
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, (size, size), mode="bilinear") + 0.1 * torch.randn(
        count, 3, size, size, generator=torch.Generator().manual_seed(2)
    )
