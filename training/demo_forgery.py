"""Forgery: the five families of manipulation that make a demo photograph a fake one.

Each takes a photograph, changes it inside one region of the head and returns it; pictures are float32[H, W, 3] in 0–255.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from training.demo_camera import jpeg_pass, to_bytes
from training.demo_canvas import Picture, Plane, ellipse, inside, noise


@dataclass(frozen=True)
class Target:
    """The photograph to forge, the head's coordinates in it, and where to get a photo of someone else in the same pose."""

    photo: Picture
    u: Plane
    v: Plane
    donor: Callable[[], Picture]


def draw_region(rng: np.random.Generator, target: Target, softness: tuple[float, float] = (0.4, 1.2)) -> Plane:
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
        distance = ellipse(u, v, (x, y), (rng.uniform(0.42, 0.62), rng.uniform(0.48, 0.72)))
    elif shape < 0.75:
        side = 1.0 if rng.random() < 0.5 else -1.0
        distance = np.maximum(side * (u - x), ellipse(u, v, (0, y), (0.66, rng.uniform(0.60, 0.85))))
    else:
        distance = np.maximum(np.abs(u - x) - rng.uniform(0.36, 0.58), np.abs(v - y) - rng.uniform(0.28, 0.55))
    return gaussian_filter(inside(distance, 0.03), rng.uniform(*softness) * size / 128)


def compose(photo: Picture, other: Picture, mask: Plane) -> Picture:
    """`other` where the mask is 1, `photo` where it is 0."""
    return photo + mask[..., None] * (other - photo)


def blend_boundary(rng: np.random.Generator, target: Target) -> Picture:
    """Someone else's face, taken with another camera, its colours drawn towards the target's."""
    other = target.donor()
    mask = draw_region(rng, target)
    weight = mask[..., None] / mask.sum()
    shift = (target.photo * weight).sum(axis=(0, 1)) - (other * weight).sum(axis=(0, 1))
    return compose(target.photo, other + rng.uniform(0, 0.3) * shift, mask * rng.uniform(0.85, 1.0))


def resampled_patch(rng: np.random.Generator, target: Target) -> Picture:
    """The region shrunk and enlarged again, or turned and pasted back."""
    size, image = target.photo.shape[0], to_bytes(target.photo)
    mask = draw_region(rng, target)
    if rng.random() < 0.6:
        small = round(size / rng.uniform(3.5, 7))
        shrunk = image.resize((small, small), Image.Resampling.BOX)
        method = Image.Resampling.NEAREST if rng.random() < 0.75 else Image.Resampling.BICUBIC
        other = np.asarray(shrunk.resize((size, size), method), np.float32)
    else:
        rows, columns = np.indices(mask.shape)
        centre = (float((mask * columns).sum() / mask.sum()), float((mask * rows).sum() / mask.sum()))
        other = np.asarray(image.rotate(rng.uniform(30, 330), Image.Resampling.BICUBIC, center=centre), np.float32)
    return compose(target.photo, other, mask)


def foreign_noise(rng: np.random.Generator, target: Target) -> Picture:
    """Another sensor's noise, fine or blotchy, or another JPEG with its own 8×8 grid."""
    size, kind = target.photo.shape[0], rng.random()
    mask = draw_region(rng, target)
    if kind < 0.5:
        grain = rng.standard_normal((size, size, 3), dtype=np.float32)
        if kind < 0.25:
            grain = 3 * gaussian_filter(grain, (0.9, 0.9, 0))
        other = target.photo + rng.uniform(12, 26) * grain
    else:
        down, right = (int(s) for s in rng.integers(1, 8, 2))
        moved = np.roll(target.photo, (down, right), axis=(0, 1))
        other = np.roll(jpeg_pass(moved, int(rng.integers(3, 9))), (-down, -right), axis=(0, 1))
    return compose(target.photo, other, mask)


def warp(rng: np.random.Generator, target: Target) -> Picture:
    """A swirl, a bulge or a ripple."""
    size = target.photo.shape[0]
    rows, columns = np.indices((size, size), np.float32)
    mask = draw_region(rng, target, (3.0, 5.0))
    row, column = float((mask * rows).sum() / mask.sum()), float((mask * columns).sum() / mask.sum())
    dy, dx, kind = rows - row, columns - column, rng.random()
    if kind < 0.4:
        angle = mask * np.float32(rng.uniform(1.2, 2.6) * (1 if rng.random() < 0.5 else -1))
        cos, sin = np.cos(angle), np.sin(angle)
        dy, dx = dy * cos + dx * sin, dx * cos - dy * sin
    elif kind < 0.6:
        zoom = 1 - mask * np.float32(rng.uniform(0.45, 0.65))
        dy, dx = dy * zoom, dx * zoom
    else:
        length, height = size * rng.uniform(0.08, 0.15), size * rng.uniform(0.02, 0.035)
        wave = np.float32(2 * np.pi / length)
        dx, dy = dx + mask * np.float32(height) * np.sin(rows * wave), dy + mask * np.float32(height) * np.sin(columns * wave)
    place = (row + dy, column + dx)
    planes = [map_coordinates(target.photo[..., c], place, order=1, mode="nearest") for c in range(3)]
    return np.stack(planes, axis=-1)


def colour_mismatch(rng: np.random.Generator, target: Target) -> Picture:
    """The region under another white balance."""
    mask = draw_region(rng, target)
    signs = np.where(rng.random(3) < 0.5, -1, 1)
    gains = 1 + signs * rng.uniform(0.12, 0.40, 3)
    return compose(target.photo, target.photo * np.asarray(gains, np.float32), mask)


FAMILIES: dict[str, Callable[[np.random.Generator, Target], Picture]] = {
    "blend-boundary": blend_boundary,
    "resampled-patch": resampled_patch,
    "foreign-noise": foreign_noise,
    "warp": warp,
    "colour-mismatch": colour_mismatch,
}
