"""Mixup: steps on blends of two photos and of their labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Beta


def mixed(images: Tensor, labels: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each photo blended with another of its batch, and its label as much (Zhang et al., arXiv 1710.09412).

    images: float32[N, …], normalised photos or features of them. labels: float32[N]. alpha: of the Beta(alpha, alpha) that the
    share is drawn from; small ones mostly leave a photo as it is. The larger share is always the photo's own, so its label
    still tells the class.
    """
    drawn = float(Beta(torch.tensor(alpha), torch.tensor(alpha)).sample())
    own = max(drawn, 1 - drawn)
    other = torch.randperm(len(images), device=images.device)
    return own * images + (1 - own) * images[other], own * labels + (1 - own) * labels[other]
