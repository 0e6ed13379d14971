"""Pseudo-fakes: self-blended images, made from real photos alone, after Shiohara and Yamasaki (CVPR 2022, arXiv 2204.08376).

A photo is blended with a slightly altered copy of itself inside a soft mask, so a detector learns the traces of blending and
not what one generator draws. The paper places the mask by facial landmarks; here it lies at random around the middle, so no
landmark detector is needed and photos should be portraits. Everything that is drawn comes from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, pi, sin

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import map_coordinates

from training.data.equalise import recompressed
from training.data.photos import REAL, Parts

RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)  # how much of the altered copy shows in the mask; the paper's
QUALITIES = (40, 100)  # of the JPEG encode that real photos and pseudo-fakes both go through
_GRID = 64  # the mask is soft, so it is drawn at this size: a quarter of the time at 224 pixels
NOTE = {
    "alone": (
        "The folder holds real photos alone. Every fake one, in training, calibration and validation, is a pseudo-fake: "
        "a real photo blended with an altered copy of itself. The numbers say how well these are told from real photos, "
        "and nothing about the forgeries of any generator or editor."
    ),
    "added": (
        "In fitting, each real photo was shown a second time and once as a pseudo-fake, blended with an altered copy of "
        "itself. The photos that were tuned on, calibrated on and reported on are the folder's own."
    ),
}


@dataclass(frozen=True)
class SelfBlend:
    """One real photo and what was made of it, uint8[H, W, 3] each, before the JPEG encode.

    mask: float32[H, W] from 0 to 1, how much of the altered copy shows; where it is 0 both are equal.
    """

    base: NDArray[np.uint8]
    fake: NDArray[np.uint8]
    mask: NDArray[np.float32]


def self_blend(pixels: NDArray[np.uint8], seed: int) -> SelfBlend:
    """Blend uint8[H, W, 3] with a copy of itself; half of the time the photo is altered and the copy is not."""
    rng = np.random.default_rng([seed, 1])
    base, source = _sides(pixels, seed)
    source = _moved(source, rng)
    mask = _mask(rng, pixels.shape[0], pixels.shape[1])
    mixed = base + mask[..., None] * (source.astype(np.float32) - base)
    return SelfBlend(base, (mixed + 0.5).astype(np.uint8), mask)


def pseudo_fake(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """A pseudo-fake of uint8[H, W, 3], through JPEG; its real counterpart is `genuine` with the same seed."""
    return _encoded(self_blend(pixels, seed).fake, seed)


def genuine(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """The photo itself as it is shown beside pseudo-fakes: altered as often as their bases are, and through the same JPEG."""
    return _encoded(_sides(pixels, seed)[0], seed)


def paired(parts: Parts, n: int) -> Parts:
    """Parts in which each row of real photos is joined by its pseudo-fake: row `r` of `n` photos has that of `n + r`."""
    return replace(parts, **{name: np.concatenate([rows, rows + n]) for name, rows in parts.items()})


def joined(rows: NDArray[np.int64], labels: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Rows to fit on: those given, each real one again, and its pseudo-fake `n` rows on, so both classes grow by as many."""
    real = rows[labels[rows] == REAL]
    return np.concatenate([rows, real, real + n])


def _sides(pixels: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The photo and the copy, one of them altered in colour and sharpness."""
    rng = np.random.default_rng([seed, 0])
    return (_altered(pixels, rng), pixels) if rng.random() < 0.5 else (pixels, _altered(pixels, rng))


def _encoded(pixels: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    return recompressed(pixels, int(np.random.default_rng([seed, 2]).integers(QUALITIES[0], QUALITIES[1] + 1)))


def _altered(pixels: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Colour (RGB shift, HSV, brightness and contrast), and either a loss of sharpness or a gain, as in the paper."""
    levels = np.arange(256)
    hue, saturation, value = rng.uniform(-8, 8), rng.uniform(-0.15, 0.15), rng.uniform(-0.12, 0.12)
    tables = [(levels + hue) % 256, levels * (1 + saturation), levels * (1 + value)]
    image = Image.fromarray(pixels).convert("HSV").point(_table(tables)).convert("RGB")
    shift = rng.uniform(-20, 20, 3) if rng.random() < 0.3 else np.zeros(3)
    brightness, contrast = rng.uniform(-0.1, 0.1) * 255, 1 + rng.uniform(-0.1, 0.1)
    image = image.point(_table([(levels - 128) * contrast + 128 + brightness + s for s in shift]))
    if rng.random() < 0.5:
        width, height = image.size
        ratio = rng.uniform(1.3, 2.5)  # the paper's 2 to 4 is of photos three times as large
        small = image.resize((round(width / ratio), round(height / ratio)), Image.Resampling.BILINEAR)
        image = small.resize((width, height), Image.Resampling.BILINEAR)
    else:
        gain = rng.uniform(0.04, 0.12)
        image = image.filter(ImageFilter.Kernel((3, 3), [*[-gain] * 4, 1 + 8 * gain, *[-gain] * 4], scale=1))
    return np.asarray(image)


def _table(channels: list[NDArray[np.floating]]) -> list[int]:
    return np.clip(np.rint(np.concatenate(channels)), 0, 255).astype(int).tolist()


def _moved(pixels: NDArray[np.uint8], rng: Generator) -> NDArray[np.uint8]:
    """Shifted by up to 3 % and scaled by 0.95 to 1.05."""
    height, width = pixels.shape[:2]
    margin = round(0.06 * max(height, width)) + 1
    padded = Image.fromarray(np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
    scale = rng.uniform(0.95, 1.05)
    x, y = (margin + size / 2 * (1 - 1 / scale) + size * rng.uniform(-0.03, 0.03) for size in (width, height))
    return np.asarray(
        padded.resize((width, height), Image.Resampling.BILINEAR, box=(x, y, x + width / scale, y + height / scale))
    )


def _mask(rng: Generator, height: int, width: int) -> NDArray[np.float32]:
    """A jagged ellipse around the middle, bent, blurred, cut to its core and blurred again, times a blend ratio."""
    x, y = rng.normal(0.5, 0.07, 2).clip(0.35, 0.65) * _GRID
    across, down = rng.uniform(0.18, 0.36) * _GRID, rng.uniform(0.18, 0.4) * _GRID
    turns = np.sort(rng.uniform(0, 2 * pi, int(rng.integers(8, 17))))
    widest = float(np.max(np.diff(turns, append=turns[0] + 2 * pi)))
    turns = turns if widest < pi / 1.5 else np.linspace(0, 2 * pi, 12, endpoint=False)
    reach = rng.uniform(0.8, 1.0, len(turns))
    drawn = Image.new("L", (_GRID, _GRID))
    points = [(x + across * r * cos(t), y + down * r * sin(t)) for t, r in zip(turns, reach, strict=True)]
    ImageDraw.Draw(drawn).polygon(points, fill=255)
    bend = [np.asarray(Image.fromarray(b).resize((_GRID, _GRID), Image.Resampling.BICUBIC)) for b in _coarse(rng)]
    bent = map_coordinates(np.asarray(drawn, np.float32), np.indices((_GRID, _GRID)) + np.stack(bend), order=1)
    first = Image.fromarray(bent.astype(np.uint8)).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    core = first.point([0] * 250 + [255] * 6)
    soft = core.filter(ImageFilter.GaussianBlur(rng.uniform(0.8, 2.4)))
    mask = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return mask * np.float32(RATIOS[int(rng.integers(len(RATIOS)))] / max(float(np.max(mask)), 1.0))


def _coarse(rng: Generator) -> NDArray[np.float32]:
    return rng.normal(0, 0.03 * _GRID, (2, 4, 4)).astype(np.float32)
