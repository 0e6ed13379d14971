"""Augmentation: how training photos are varied; what is evaluated or served never comes through here."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2


def augmentation(kind: str, size: int) -> v2.Transform:
    """How uint8[3, size, size] is varied, by one of `training.options.AUGMENTATIONS`."""
    if kind == "flip":
        return v2.RandomHorizontalFlip(0.5)
    return _standard(size) if kind == "standard" else _crop(size)


def _standard(size: int) -> v2.Transform:
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


def _crop(size: int) -> v2.Transform:
    """Horizontal flip and a random square of seven eighths of the side: uint8[3, c, c] with every pixel's value as it was.

    What a generator leaves behind is often as fine as the pixel grid, and turning or recolouring smears it. That the scored
    photo is larger than the crops is to the network's advantage (Touvron et al., arXiv 1906.06423).
    """
    return v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandomCrop(size * 7 // 8)])


def augmented(transform: v2.Transform, image: Tensor, seed: int) -> Tensor:
    """`image` varied in the way that `seed` says, whichever process does it; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also seeds devices, which takes 0.4 ms even without any
        return transform(image)
