"""Augmentation: how training photos are varied; what is evaluated or served never comes through here."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2


def augmentation(size: int) -> v2.Transform:
    """Horizontal flip, colour jitter, rotation by up to 10 degrees and a shift, for uint8[3, size, size].

    The picture is mirrored outwards before it turns, so no black corners come in that serving never shows.
    """
    margin = -(-size // 10)  # a turn by 10 degrees reaches 0.08 of the size outside the square
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
            v2.RandomApply(
                [
                    v2.Pad(margin, padding_mode="reflect"),
                    v2.RandomRotation(10, interpolation=InterpolationMode.BILINEAR),
                    v2.CenterCrop(size),
                ],
                p=0.5,
            ),
            v2.RandomCrop(size, padding=margin, padding_mode="reflect"),
        ]
    )


def augmented(transform: v2.Transform, image: Tensor, seed: int) -> Tensor:
    """`image` varied in the way that `seed` says, whichever process does it; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transform(image)
