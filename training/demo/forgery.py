"""Forgery: the five families of manipulation that make a demo photograph a fake one.

Each takes a photograph, changes it inside one region of the head and returns it; pictures are float32[H, W, 3] in 0–255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from training.demo.camera import jpeg_pass, to_bytes
from training.demo.canvas import Picture, Plane, ellipse, inside, noise


@dataclass(frozen=True)
class Target:
    """The photograph to forge, the head's coordinates in it, and where to get a photo of someone else in the same pose."""

    photo: Picture
    u: Plane
    v: Plane
    donor: Callable[[], Picture]


def draw_region(rng: np.random.Generator, target: Target, softness: tuple[float, float] = (0.6, 1.6)) -> Plane:
    """Mask of what is forged: the inner face, half of it, or a patch around eyes or mouth, with a wavy border.

    `softness` bounds the blur of the border in pixels of a 128 pixel picture. Place, size and shape are jittered, or a
    detector would learn where to look instead of what to look for.
    """
    size = target.u.shape[0]
    u, v = target.u + 0.05 * noise(rng, target.u.shape, 7), target.v + 0.05 * noise(rng, target.u.shape, 7)
    turn = rng.normal(0, 0.25)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u, v = u * cos + v * sin, v * cos - u * sin
    x, y = rng.normal(0, 0.08), rng.normal(0.22, 0.08)
    shape = rng.random()
    if shape < 0.5:
        distance = ellipse(u, v, (x, y), (rng.uniform(0.48, 0.72), rng.uniform(0.55, 0.85)))
    elif shape < 0.75:
        side = 1.0 if rng.random() < 0.5 else -1.0
        distance = np.maximum(side * (u - x), ellipse(u, v, (0, y), (0.72, rng.uniform(0.70, 0.95))))
    else:
        distance = np.maximum(np.abs(u - x) - rng.uniform(0.42, 0.64), np.abs(v - y) - rng.uniform(0.34, 0.64))
    return gaussian_filter(inside(distance, 0.03), rng.uniform(*softness) * size / 128)


def compose(photo: Picture, other: Picture, mask: Plane) -> Picture:
    """`other` where the mask is 1, `photo` where it is 0."""
    return photo + mask[..., None] * (other - photo)


def blend_boundary(rng: np.random.Generator, target: Target) -> Picture:
    """Someone else's face, taken with another camera and in other light, laid over the target's."""
    other, mask = target.donor(), draw_region(rng, target)
    weight = mask[..., None] / mask.sum()
    darker = (other * weight).sum() < (target.photo * weight).sum()
    exposure = rng.uniform(0.75, 0.95) if darker else rng.uniform(1.05, 1.2)
    return compose(target.photo, np.clip(other * np.float32(exposure), 0, 255), mask)


def resampled_patch(rng: np.random.Generator, target: Target) -> Picture:
    """The region shrunk and enlarged again, or turned and pasted back."""
    size, image, kind = target.photo.shape[0], to_bytes(target.photo), rng.random()
    mask = draw_region(rng, target)
    if kind < 0.65:
        small = round(size / rng.uniform(6, 10))
        shrunk = image.resize((small, small), Image.Resampling.BOX)
        method = Image.Resampling.NEAREST if kind < 0.3 else Image.Resampling.BICUBIC
        other = np.asarray(shrunk.resize((size, size), method), np.float32)
    else:
        row, column = _centre(mask)
        other = np.asarray(image.rotate(rng.uniform(60, 300), Image.Resampling.BICUBIC, center=(column, row)), np.float32)
    return compose(target.photo, other, mask)


def foreign_noise(rng: np.random.Generator, target: Target) -> Picture:
    """Another sensor's noise, fine or blotchy, or another JPEG with its own 8×8 grid."""
    size, kind = target.photo.shape[0], rng.random()
    mask = draw_region(rng, target)
    if kind < 0.40:
        grain = rng.standard_normal((size, size, 3), dtype=np.float32)
        if kind < 0.33:
            grain = np.float32(3.9) * gaussian_filter(grain, (1.1, 1.1, 0))
        other = target.photo + np.float32(rng.uniform(12, 22)) * grain
    else:
        down, right = (int(s) for s in rng.integers(1, 8, 2))
        moved = np.roll(target.photo, (down, right), axis=(0, 1))
        other = np.roll(jpeg_pass(moved, int(rng.integers(2, 7))), (-down, -right), axis=(0, 1))
    return compose(target.photo, other, mask)


def warp(rng: np.random.Generator, target: Target) -> Picture:
    """A swirl, a bulge or a ripple."""
    size, kind = target.photo.shape[0], rng.random()
    rows, columns = np.indices((size, size), np.float32)
    mask = draw_region(rng, target, (2.5, 4.5))
    row, column = _centre(mask)
    dy, dx = rows - row, columns - column
    if kind < 0.4:
        angle = mask * np.float32(rng.uniform(1.5, 3.0) * (1 if rng.random() < 0.5 else -1))
        cos, sin = np.cos(angle), np.sin(angle)
        dy, dx = dy * cos + dx * sin, dx * cos - dy * sin
    elif kind < 0.55:
        zoom = 1 - mask * np.float32(rng.uniform(0.5, 0.7))
        dy, dx = dy * zoom, dx * zoom
    else:
        wave = np.float32(2 * np.pi / (size * rng.uniform(0.10, 0.18)))
        shift = mask * np.float32(size * rng.uniform(0.025, 0.045))
        dy, dx = dy + shift * np.sin(columns * wave), dx + shift * np.sin(rows * wave)
    smooth = gaussian_filter(target.photo, (0.9, 0.9, 0))  # where the warp packs lines together they would alias
    planes = [map_coordinates(smooth[..., c], (row + dy, column + dx), order=1, mode="nearest") for c in range(3)]
    return compose(target.photo, np.stack(planes, axis=-1), np.minimum(1, 4 * mask))


def colour_mismatch(rng: np.random.Generator, target: Target) -> Picture:
    """The region under another white balance: one channel up, one down, one either way."""
    mask = draw_region(rng, target)
    gains = np.asarray([1 + rng.uniform(0.2, 0.5), 1 - rng.uniform(0.2, 0.5), rng.uniform(0.6, 1.4)], np.float32)
    return compose(target.photo, np.clip(target.photo * rng.permutation(gains), 0, 255), mask)


def _centre(mask: Plane) -> tuple[float, float]:
    """Row and column of a region's centre of mass."""
    total = mask.sum()
    down, across = mask.sum(axis=1) / total, mask.sum(axis=0) / total
    return float(down @ np.arange(len(down))), float(across @ np.arange(len(across)))


FAMILIES: dict[str, Callable[[np.random.Generator, Target], Picture]] = {
    "blend-boundary": blend_boundary,
    "resampled-patch": resampled_patch,
    "foreign-noise": foreign_noise,
    "warp": warp,
    "colour-mismatch": colour_mismatch,
}
