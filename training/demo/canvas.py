"""Canvas: the few drawing tools the demo portraits are made with; colours are linear light, masks are in [0, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.floating]
"""float32[H, W]: a mask, a height, a coordinate."""
Picture = NDArray[np.floating]
"""float32[H, W, 3]: RGB."""
Colour = NDArray[np.floating]
"""float32[3]: RGB."""
Palette = NDArray[np.floating]
"""float32[K, 3]: display values in [0, 1]."""


def palette(codes: str) -> Palette:
    """Colours from hexadecimal codes with spaces between."""
    return np.asarray([list(bytes.fromhex(code)) for code in codes.split()], np.float32) / np.float32(255)


def colour(red: float, green: float, blue: float) -> Colour:
    """Linear-light colour of display values in [0, 1]."""
    return np.asarray([red, green, blue], np.float32) ** np.float32(2.2)


def pick_colour(rng: np.random.Generator, colours: Palette, spread: float = 0.03) -> Colour:
    """A colour of the palette, each channel moved by about `spread`; returns linear light."""
    base = colours[rng.integers(len(colours))]
    red, green, blue = np.clip(base + rng.normal(0, spread, 3), 0.01, 0.99)
    return colour(red, green, blue)


def inside(distance: Plane, edge: float) -> Plane:
    """Mask of a shape given its signed distance (negative inside); the border is a ramp `edge` wide, so nothing aliases."""
    return np.clip(0.5 - distance / np.float32(edge), 0, 1)


def ellipse(u: Plane, v: Plane, centre: tuple[float, float], radii: tuple[float, float]) -> Plane:
    """Signed distance to an ellipse: exact on its border, approximate elsewhere."""
    return (np.hypot((u - centre[0]) / radii[0], (v - centre[1]) / radii[1]) - 1) * min(radii)


def bump(u: Plane, v: Plane, centre: tuple[float, float], radii: tuple[float, float]) -> Plane:
    """Gaussian hill of height 1."""
    return np.exp(-(((u - centre[0]) / radii[0]) ** 2) - ((v - centre[1]) / radii[1]) ** 2)


def step(x: Plane, low: float, high: float) -> Plane:
    """Smooth step: 0 below `low`, 1 above `high`."""
    t = np.clip((x - low) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def noise(rng: np.random.Generator, shape: tuple[int, ...], cells: float, cells_y: float | None = None) -> Plane:
    """Smooth random field, mean 0, deviation near 1: `cells` blobs across, `cells_y` down (by default as wide as high)."""
    height, width = shape
    across, down = max(2, round(cells)), max(2, round(cells * height / width if cells_y is None else cells_y))
    grid = rng.standard_normal((down, across), dtype=np.float32) * np.float32(1.4)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def clouds(rng: np.random.Generator, shape: tuple[int, ...], cells: float, octaves: int = 3) -> Plane:
    """Sum of `octaves` random fields, each twice as fine and half as strong."""
    total = noise(rng, shape, cells)
    for octave in range(1, octaves):
        total = total + noise(rng, shape, cells * 2**octave) / np.float32(2**octave)
    return total


def window(shape: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest rectangle that holds a shape; empty where there is none. A portrait is drawn 1.5 times as fast for it."""
    rows, columns = shape.any(axis=1).nonzero()[0], shape.any(axis=0).nonzero()[0]
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def paint(picture: Picture, mask: Plane, paint_colour: Colour | Picture) -> None:
    """Cover the picture, in place, with a colour or another picture where the mask says so."""
    here = window(mask > 0.004)
    cover = paint_colour[here] if paint_colour.ndim == 3 else paint_colour
    picture[here] += mask[here][..., None] * (cover - picture[here])
