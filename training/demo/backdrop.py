"""Backdrop: what stands behind and below the face of a demo portrait."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from training.demo.canvas import (
    Colour,
    Palette,
    Picture,
    Plane,
    clouds,
    colour,
    inside,
    noise,
    paint,
    palette,
    pick_colour,
    step,
)

WALLS = palette("d1ccc2 8c9eb2 596675 bda88f 404552 99ad99 7a5c52 ccbda8 6b8594")
LEAVES = palette("385c24 527333 738038 294729")
BOOKS = palette("8c3329 33476b b89e6b 3d5c47 d1c7b2 4c3d38")
CLOTHES = palette("292e3d cccccc 752429 385780 476147 b89466 614c70 1f1f21 a8664c 4c7a85")


def draw_backdrop(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
    """A wall, bricks, foliage, city lights, a book shelf or a window, out of focus, under a gradient of light.

    `x` and `y` are float32[H, W] picture coordinates in [-1, 1]. Returns linear light, float32[H, W, 3].
    """
    size = x.shape[0]
    kind = (_wall, _wall, _bricks, _leaves, _lights, _shelf, _window)[rng.integers(7)]
    picture = kind(rng, x, y)
    picture = gaussian_filter(picture, (*[size * rng.uniform(0.012, 0.030)] * 2, 0))
    picture = picture + 0.5 * (picture.mean(axis=-1, keepdims=True) - picture)
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.45) * (np.cos(angle) * x + np.sin(angle) * y)
    return np.asarray(picture * light[..., None] * rng.uniform(0.6, 1.15), np.float32)


def _flat(rng: np.random.Generator, x: Plane, colours: Palette) -> Picture:
    return np.broadcast_to(pick_colour(rng, colours), (*x.shape, 3)).copy()


def _wall(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
    tone = 1 + 0.10 * clouds(rng, x.shape, 3) + rng.uniform(0.02, 0.12) * noise(rng, x.shape, x.shape[1] / 2)
    return _flat(rng, x, WALLS) * np.clip(tone, 0.2, 2)[..., None]


def _bricks(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
    height = rng.uniform(0.14, 0.24)
    row = np.floor(y / height)
    across = x / (2.3 * height) + 0.5 * (row % 2)
    joint = np.minimum(np.abs(y / height - row - 0.5), 2.3 * np.abs(across - np.floor(across) - 0.5))
    shade = 1 + 0.25 * np.sin(row * 12.9 + np.floor(across) * 78.2) + 0.12 * noise(rng, x.shape, x.shape[1] / 3)
    picture = _flat(rng, x, palette("9e5c47 c7bdb2 7a6b66")) * shade[..., None]
    paint(picture, step(joint, 0.42, 0.47), colour(0.62, 0.60, 0.57))
    return picture


def _leaves(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
    picture = _flat(rng, x, LEAVES)
    for cells in (6, 11, 20, 30):
        paint(picture, step(noise(rng, x.shape, cells), 0.3, 0.7), pick_colour(rng, LEAVES) * rng.uniform(0.5, 1.8))
    paint(picture, step(noise(rng, x.shape, 9), 1.2, 1.6), colour(0.80, 0.86, 0.84))
    return picture


def _lights(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
    picture = _flat(rng, x, palette("1a1f2e 2e2424 38424c"))
    picture *= (1 + 0.3 * clouds(rng, x.shape, 3)).clip(0.2)[..., None]
    for _ in range(rng.integers(8, 20)):
        lamp = pick_colour(rng, palette("f2bf73 99bff2 f28066 d9d9cc"))
        radius = rng.uniform(0.04, 0.14)
        distance = np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 0.7)) - radius
        paint(picture, inside(distance, 0.03) * rng.uniform(0.2, 0.7), lamp)
    return picture


def _shelf(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
    picture = _flat(rng, x, palette("291f1a 574233"))
    shelf = rng.uniform(0.45, 0.65)
    for row in range(5):
        top, left = -1.2 + row * shelf, -1.05
        while left < 1.05:
            width, low = rng.uniform(0.06, 0.14), top + rng.uniform(0.05, 0.16)
            book = (np.abs(x - left - width / 2) < width * 0.46) & (y > low) & (y < top + shelf - 0.05)
            picture[book] = pick_colour(rng, BOOKS) * rng.uniform(0.5, 1.1)
            left += width
    return picture


def _window(rng: np.random.Generator, x: Plane, y: Plane) -> Picture:
    picture = _wall(rng, x, y) * 0.7
    left, right = sorted(rng.uniform(-1.1, 1.1, 2))
    glass = ((x > left) & (x < max(right, left + 0.6)) & (y < rng.uniform(0, 1))).astype(np.float32)
    frame = (np.abs(np.sin((x - left) * rng.uniform(4, 7))) < 0.12) | (np.abs(np.sin(y * rng.uniform(3, 5))) < 0.1)
    outside = _leaves(rng, x, y) * 0.8 + colour(0.70, 0.80, 0.88) * 0.6 * np.clip(0.4 - y, 0, 1)[..., None]
    outside[frame] = colour(0.78, 0.76, 0.72)
    paint(picture, glass, outside)
    return picture


def draw_clothes(rng: np.random.Generator, picture: Picture, u: Plane, v: Plane, edge: float, skin: Colour) -> None:
    """Paint neck and shoulders, in place; `u` and `v` are upright coordinates of the head (see portrait)."""
    size = u.shape[0]
    neck_width = rng.uniform(0.34, 0.46)
    neck = inside(np.abs(u) - neck_width - 0.12 * step(v, 0.9, 1.5), edge) * step(v, 0.3, 0.5)
    under_chin = 0.30 + 0.55 * step(v, 0.95, 1.55) - 0.15 * np.abs(u / neck_width) ** 2
    paint(picture, neck, skin * np.clip(under_chin, 0.1, 1)[..., None])
    slope, top = rng.uniform(0.28, 0.45), rng.uniform(1.22, 1.36)
    cloth = pick_colour(rng, CLOTHES, 0.05)
    folds = 1 + 0.22 * noise(rng, u.shape, 7, 4) + 0.06 * noise(rng, u.shape, size / 3)
    fabric = np.broadcast_to(cloth, (*u.shape, 3)) * np.clip(folds, 0.3, 1.8)[..., None]
    pattern = rng.random()
    if pattern < 0.35:
        along = (v if pattern < 0.2 else u) * rng.uniform(14, 30)
        fabric = fabric + (0.8 * step(np.sin(along), 0.2, 0.6))[..., None] * (pick_colour(rng, CLOTHES) - fabric)
    shoulders = top + slope * np.abs(u) ** 1.7 - v
    collar = v - top - rng.uniform(0.10, 0.40) + rng.uniform(0.6, 1.6) * np.abs(u) ** rng.uniform(1, 2)
    body = inside(shoulders, edge) * (1 - inside(collar, edge) * inside(np.abs(u) - neck_width - 0.08, edge))
    light = 1 - 0.35 * step(np.abs(u), 0.6, 1.9)
    paint(picture, body, np.asarray(fabric * light[..., None], np.float32))
    paint(picture, np.exp(-((collar / 0.035) ** 2)) * inside(shoulders, edge) * 0.6, cloth * 0.45)
