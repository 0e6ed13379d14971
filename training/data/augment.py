"""Augmentation: how training photos are varied; what is evaluated or served never comes through here."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from training.data.robust import RobustCrop

Variation = Callable[[Tensor], Tensor]


def augmentation(kind: str, size: int, side: int | None = None) -> Variation:
    """How uint8[3, size, size] is varied, as the option `--augment` says.

    side: of the square that `crop` and `robust` cut out; None stands for seven eighths of the size.
    """
    if kind == "flip":
        return v2.RandomHorizontalFlip(0.5)
    if kind == "standard":
        return _standard(size)
    return (RobustCrop if kind == "robust" else _crop)(side or size * 7 // 8)


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


def _crop(side: int) -> v2.Transform:
    """Horizontal flip and a random square: uint8[3, side, side] with every pixel's value as it was.

    What a generator leaves behind is often as fine as the pixel grid, and turning or recolouring smears it. That the scored
    photo is larger than the crops is to the network's advantage (Touvron et al., arXiv 1906.06423).
    """
    return v2.Compose([v2.RandomHorizontalFlip(0.5), v2.RandomCrop(side)])


def augmented(transform: Variation, image: Tensor, seed: int) -> Tensor:
    """`image` varied in the way that `seed` says, whichever process does it; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also seeds devices, which takes 0.4 ms even without any
        return transform(image)
