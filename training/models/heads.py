"""Heads: from pooled features to one logit, and the logit's gradient with respect to those features in closed form."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn


class MlpHead(nn.Sequential):
    """Dropout and linear layers with ReLU between them, and batch norm before each ReLU where `norm` is set.

    The input is float32[N, C], the output float32[N, 1]. even: the input comes from layers whose scales differ by orders of
    magnitude, so batch norm makes it even first.
    """

    def __init__(
        self, channels: int, hidden: tuple[int, ...], dropout: float, norm: bool = False, *, even: bool = False
    ) -> None:
        layers: list[nn.Module] = [nn.BatchNorm1d(channels)] if even else []
        width = channels
        for size in hidden:
            layers += [nn.Dropout(dropout), nn.Linear(width, size), *([nn.BatchNorm1d(size)] if norm else []), nn.ReLU()]
            width = size
        super().__init__(*layers, nn.Dropout(dropout), nn.Linear(width, 1))

    def with_gradient(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """The output [N, 1] and its gradient with respect to `pooled`, [N, C], as they are at inference.

        In eval mode dropout is the identity and batch norm a constant scale, so the whole is piecewise linear.
        """
        layers = [layer for layer in self if not isinstance(layer, nn.Dropout)]
        value, slopes = pooled, []
        for layer in layers:
            value = layer(value)
            slopes.append(_slope(layer, value))
        gradient = torch.ones_like(value)
        for layer, slope in zip(reversed(layers), reversed(slopes), strict=True):
            gradient = gradient @ slope if isinstance(layer, nn.Linear) else gradient * slope
        return value, gradient


def _slope(layer: nn.Module, value: Tensor) -> Tensor:
    """The derivative of a layer that gave `value`: a linear layer's matrix, a factor for each feature of the others."""
    if isinstance(layer, nn.Linear):
        return layer.weight
    if isinstance(layer, nn.BatchNorm1d):
        return layer.weight * torch.rsqrt(cast(Tensor, layer.running_var) + layer.eps)
    return (value > 0).to(value.dtype)


class GatedHead(nn.Module):
    """Two heads on two streams' features, weighed for each photo: `g · visual + (1 - g) · forensic`.

    The gate g is a sigmoid of a linear layer on both streams' features; it starts at one half for every photo. The input is
    float32[N, V + F], visual features first; the output float32[N, 1].
    """

    def __init__(
        self,
        visual: int,
        forensic: int,
        hidden: tuple[int, ...],
        dropout: float,
        norm: bool = False,
        *,
        even: bool = False,
    ) -> None:
        super().__init__()
        self.widths = [visual, forensic]
        self.visual = MlpHead(visual, hidden, dropout, norm, even=even)
        self.forensic = MlpHead(forensic, hidden, dropout, norm)
        self.gate = nn.Linear(visual + forensic, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def visual_share(self, pooled: Tensor) -> Tensor:
        """The gate: how much of the logit is the visual stream's, float32[N, 1] from 0 to 1."""
        return torch.sigmoid(self.gate(pooled))

    def forward(self, pooled: Tensor) -> Tensor:
        """The logit, float32[N, 1]."""
        visual, forensic = pooled.split(self.widths, dim=1)
        share = self.visual_share(pooled)
        return share * self.visual(visual) + (1 - share) * self.forensic(forensic)

    def with_gradient(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """The output [N, 1] and its gradient with respect to `pooled`, [N, V + F], through both heads and the gate."""
        visual, forensic = pooled.split(self.widths, dim=1)
        share = self.visual_share(pooled)
        (a, of_a), (b, of_b) = self.visual.with_gradient(visual), self.forensic.with_gradient(forensic)
        of_share = (a - b) * share * (1 - share) * self.gate.weight
        return share * a + (1 - share) * b, torch.cat([share * of_a, (1 - share) * of_b], dim=1) + of_share
