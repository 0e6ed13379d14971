"""The detector networks: normalised photos in; a logit, and a map of where it comes from, out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.models.heads import GatedHead, MlpHead


class DetectorNet(nn.Module):
    """What all architectures do. The input is float32[N, 3, H, W], normalised; a logit above zero leans fake."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The logit, float32[N]."""

    @abstractmethod
    def logit_and_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logit, and which places speak for it: float32[N] and float32[N, h, w] at feature-map size, in eval mode."""


class PooledNet(DetectorNet):
    """Backbone features, global average pooling, head. zoom: how many times larger than the photo the
    backbone's input is, along each side."""

    def __init__(self, features: nn.Module, head: MlpHead | GatedHead, *, zoom: float = 1.0) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.zoom = zoom

    def forward(self, x: Tensor) -> Tensor:
        """The logit, float32[N]."""
        return self.head(self.pooled(x)).squeeze(1)

    def pooled(self, x: Tensor) -> Tensor:
        """What the head sees of a photo, float32[N, C]."""
        return self.features(self.zoomed(x)).mean(dim=(2, 3))

    def zoomed(self, x: Tensor) -> Tensor:
        """The photo at the size that the backbone sees."""
        if self.zoom == 1:
            return x
        return F.interpolate(x, scale_factor=self.zoom, mode="bilinear", align_corners=False)

    def logit_and_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logit, and which places speak for it: float32[N] and float32[N, h, w] at feature-map size, in eval mode.

        The map is Grad-CAM (Selvaraju et al., arXiv 1610.02391) of the logit before its final ReLU: above zero speaks for
        fake, below for real. The head knows its gradient in closed form, so no backward pass is needed.
        """
        maps = self.features(self.zoomed(x))
        logit, gradient = self.head.with_gradient(maps.mean(dim=(2, 3)))
        weights = gradient / (maps.shape[2] * maps.shape[3])
        return logit.squeeze(1), torch.einsum("nc,nchw->nhw", weights, maps)


class DualStreamNet(PooledNet):
    """A visual and a forensic stream, whose feature maps lie on one another, and a gate that weighs them for each photo."""

    head: GatedHead

    def gate(self, x: Tensor) -> Tensor:
        """How much of each photo's logit is the visual stream's, the rest being the forensic one's: float32[N], 0 to 1."""
        return self.head.visual_share(self.pooled(x)).squeeze(1)


class EnsembleNet(DetectorNet):
    """Several networks' mean logit, of the photo and, with `mirror`, of its mirror image.

    Logits are averaged rather than probabilities: the mean is then the logit of what is reported, the maps' mean is the map
    of that logit, and a member that is sure is not flattened by the sigmoid.
    """

    def __init__(self, members: Sequence[DetectorNet], *, mirror: bool = False) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.mirror = mirror

    def forward(self, x: Tensor) -> Tensor:
        """The mean logit, float32[N]."""
        views = [x, x.flip(3)] if self.mirror else [x]
        return torch.stack([member(view) for member in self.members for view in views]).mean(dim=0)

    def logit_and_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean logit, and the mean of the members' maps, each brought to the size of the finest."""
        pairs = [cast(DetectorNet, member).logit_and_map(x) for member in self.members]
        if self.mirror:
            mirrored = [cast(DetectorNet, member).logit_and_map(x.flip(3)) for member in self.members]
            pairs += [(logit, heat.flip(2)) for logit, heat in mirrored]
        logits, maps = zip(*pairs, strict=True)
        size = max(m.shape[1] for m in maps), max(m.shape[2] for m in maps)
        return torch.stack(logits).mean(dim=0), torch.stack([_resized(m, size) for m in maps]).mean(dim=0)


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if maps.shape[1:] == size:
        return maps
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)
