"""The scoring graph: decoded pixels in; logit, raw probability and heatmap out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from detector.spec import ImageSpec
from training.models.networks import DetectorNet


class ScoringGraph(nn.Module):
    """Normalise, backbone, logit, sigmoid and class-activation map in one module.

    The input is uint8[N, H, W, 3] as `detector.decode_image` returns it. Outputs: logit float32[N] (above zero leans
    fake), raw_prob float32[N] (its sigmoid), heatmap float32[N, h, w] at feature-map size.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, net: DetectorNet, spec: ImageSpec) -> None:
        super().__init__()
        self.net = _baked(net)
        mean, std = torch.tensor(spec.mean, dtype=torch.float64), torch.tensor(spec.std, dtype=torch.float64)
        # (v / 255 - mean) / std as one multiply and one add per value. The constants have a value for each column too: ONNX
        # Runtime computes an int8 network with the channels last, and takes constants of three values three at a time (2.0 ms
        # of 8.9 a photo at 256 px).
        self.register_buffer("scale", _for_each_column(1 / (255 * std), spec.size))
        self.register_buffer("shift", _for_each_column(-mean / std, spec.size))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logit, raw probability and heatmap of uint8[N, H, W, 3]."""
        # Reordered as bytes, a quarter of the memory traffic that floats would take.
        logit, heatmap = self.net.logit_and_map(images.permute(0, 3, 1, 2).float() * self.scale + self.shift)
        return logit, torch.sigmoid(logit), heatmap


def _for_each_column(values: Tensor, width: int) -> Tensor:
    """float32[3, 1, width] of a value for each channel."""
    return values.float().reshape(3, 1, 1).repeat(1, 1, width)


def _baked(net: DetectorNet) -> DetectorNet:
    """A copy whose constrained weights are plain tensors with the values that the constraint gave them."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if parametrize.is_parametrized(module):
            # Removal deletes the attribute from the module's class, which a copy shares with the original (torch 2.15).
            kind = type(module)
            module.__class__ = type(kind.__name__, kind.__bases__, dict(kind.__dict__))
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name)
    return net


class LogitAndMap(nn.Module):
    """The part of the scoring graph that the TorchScript archive holds; the handler applies sigmoid and curve."""

    def __init__(self, graph: ScoringGraph) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logit float32[N] and heatmap float32[N, h, w] of uint8[N, H, W, 3]."""
        logit, _, heatmap = self.graph(images)
        return logit, heatmap


def example_images(spec: ImageSpec, batch: int = 2) -> Tensor:
    """Random pixels to trace with; two of them, since exporters take a batch of one for a constant."""
    return torch.randint(0, 256, (batch, *spec.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
