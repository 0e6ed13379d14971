"""Robust augmentation: training photos as they arrive after a screenshot, a messenger, an editor or a poor camera."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

CHANGED = 0.5  # share of the photos that are changed; the others keep each pixel's value
_FILTERS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.HAMMING,
    Image.Resampling.BOX,
)
_ENLARGING = _FILTERS[:3]
_TONES = ((ImageEnhance.Brightness, 0.25), (ImageEnhance.Contrast, 0.25), (ImageEnhance.Color, 0.4))


class RobustCrop:
    """A random square of uint8[3, size, size], mirrored half of the time: uint8[3, side, side].

    Half of the squares are changed, each by a random few of the changes below, in the order in which they happen to a photo
    on its way. Changes are made to the square alone, so that they cost what it costs: about 1 ms for 128 pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Tensor) -> Tensor:
        """The square that torch's random state decides."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        changed = rng.random() < CHANGED
        window = self._window(image, rng) if changed else self.side
        top, left = (int(rng.integers(0, length - window + 1)) for length in image.shape[1:])
        square = image[:, top : top + window, left : left + window]
        if changed:
            picture = _changed(Image.fromarray(square.permute(1, 2, 0).contiguous().numpy()), rng)
            if picture.size != (self.side, self.side):
                picture = picture.resize((self.side, self.side), _one_of(_ENLARGING, rng))
            square = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        return square.flip(2) if rng.random() < 0.5 else square

    def _window(self, image: Tensor, rng: Generator) -> int:
        """Side of what becomes the square: usually its own, else up to a quarter more or less, as a face fills a photo."""
        scale = float(np.exp(rng.uniform(-1, 1) * np.log(1.25))) if rng.random() < 0.3 else 1.0
        return min(round(self.side * scale), *image.shape[1:])


def _changed(picture: Image.Image, rng: Generator) -> Image.Image:
    """Tones, grey, blur and noise, each now and then; then, mostly, a smaller copy, a re-encoded one or both."""
    if rng.random() < 0.4:
        picture = _retouched(picture, rng)
    if rng.random() < 0.1:
        picture = picture.convert("L").convert("RGB")
    if rng.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
    if rng.random() < 0.1:
        picture = _stored(np.asarray(picture) + rng.normal(0, rng.uniform(1, 8), (picture.height, picture.width, 3)))
    if rng.random() < 0.35:
        side = max(8, round(picture.width * rng.uniform(0.45, 0.95)))
        picture = picture.resize((side, side), _one_of(_FILTERS, rng))
        return _encoded(picture, int(rng.integers(60, 96)), rng) if rng.random() < 0.6 else picture
    return _encoded(picture, int(rng.integers(40, 96)), rng) if rng.random() < 0.55 else picture


def _retouched(picture: Image.Image, rng: Generator) -> Image.Image:
    """Another brightness, contrast and saturation, and half of the time another white balance."""
    for enhance, most in _TONES:
        picture = enhance(picture).enhance(float(rng.uniform(1 - most, 1 + most)))
    return _stored(np.asarray(picture) * rng.uniform(0.9, 1.1, 3)) if rng.random() < 0.5 else picture


def _encoded(picture: Image.Image, quality: int, rng: Generator) -> Image.Image:
    """The picture after a lossy file: one in five is a WebP, the others are JPEGs with whole or halved colour."""
    file = BytesIO()
    if rng.random() < 0.2:
        picture.save(file, "WEBP", quality=quality, method=0)  # the fastest method; the slowest takes ten times as long
    else:
        picture.save(file, "JPEG", quality=quality, subsampling=0 if rng.random() < 1 / 3 else 2)
    return Image.open(file).convert("RGB")


def _stored(pixels: np.ndarray) -> Image.Image:
    """Values in the range of 0 to 255 as a picture."""
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def _one_of(filters: tuple[Image.Resampling, ...], rng: Generator) -> Image.Resampling:
    return filters[int(rng.integers(len(filters)))]
