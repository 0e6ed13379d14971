"""Camera: turns the light of a demo portrait into a photograph, and a photograph into the file that is shipped."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from scipy.ndimage import convolve, gaussian_filter

from training.demo.canvas import Picture, Plane

_BAYER = (((0, 0),), ((0, 1), (1, 0)), ((1, 1),))
"""Where red, green and blue lie in each 2×2 cell of the sensor."""
_CROSS = np.asarray([[0, 1, 0], [1, 4, 1], [0, 1, 0]], np.float32) / 4
_SQUARE = np.asarray([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 4
FINAL_QUALITIES = (80, 84, 88, 92, 95)


@dataclass(frozen=True)
class Camera:
    """Lens, sensor and firmware of one shot; `blur` is in pixels, the noise in full scale."""

    blur: float
    vignetting: float
    brightness: float
    balance: tuple[float, float, float]
    shot_noise: float
    read_noise: float
    sharpening: float
    quality: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Camera:
        """A camera and its setting, from phone at night to studio."""
        gain = rng.uniform(0, 1) ** 2
        return cls(
            blur=rng.uniform(0.50, 1.20),
            vignetting=rng.uniform(0, 0.45),
            brightness=rng.uniform(0.14, 0.28),
            balance=(rng.uniform(0.88, 1.14), 1.0, rng.uniform(0.86, 1.14)),
            shot_noise=0.0001 + 0.0007 * gain,
            read_noise=0.0005 + 0.0015 * gain,
            sharpening=rng.uniform(0, 0.5),
            quality=int(rng.integers(82, 97)),
        )

    def photograph(self, rng: np.random.Generator, scene: Picture) -> Picture:
        """Expose a scene of linear light once; returns the decoded camera JPEG as float32[H, W, 3] in 0–255.

        Noise is added per photosite, before demosaicking, so it grows with the signal and is correlated between neighbours.
        """
        size = scene.shape[0]
        axis = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / size) - 1
        fall_off = 1 - self.vignetting * 0.5 * (axis[None, :] ** 2 + axis[:, None] ** 2)
        light = gaussian_filter(scene, (self.blur, self.blur, 0)) * fall_off[..., None]
        light = light * (self.brightness / max(float(light.mean()), 1e-3))
        light = light / (1 + 0.35 * light)  # film-like shoulder, so that highlights keep their colour
        raw = np.empty((size, size), np.float32)
        for channel, sites in enumerate(_BAYER):
            for row, column in sites:
                raw[row::2, column::2] = light[row::2, column::2, channel]
        deviation = np.sqrt(self.shot_noise * raw + self.read_noise**2)
        raw = np.clip(raw + deviation * rng.standard_normal(raw.shape, dtype=np.float32), 0, 1)
        colours = demosaic(raw) * np.asarray(self.balance, np.float32) * np.float32(1.35)
        display = 255 * np.clip(colours, 0, 1) ** np.float32(1 / 2.2)
        display = display + self.sharpening * (display - gaussian_filter(display, (1.0, 1.0, 0)))
        return jpeg_pass(display, self.quality)


def demosaic(raw: Plane) -> Picture:
    """Bilinear interpolation of a Bayer RGGB frame."""
    planes = []
    for channel, sites in enumerate(_BAYER):
        sparse = np.zeros_like(raw)
        for row, column in sites:
            sparse[row::2, column::2] = raw[row::2, column::2]
        planes.append(convolve(sparse, _CROSS if channel == 1 else _SQUARE, mode="mirror"))
    return np.stack(planes, axis=-1)


def to_bytes(display: Picture) -> Image.Image:
    """An 8-bit image of display values in 0–255."""
    return Image.fromarray(np.clip(np.rint(display), 0, 255).astype(np.uint8))


def jpeg_pass(display: Picture, quality: int) -> Picture:
    """What one JPEG encode and decode leave of a picture; values in 0–255."""
    buffer = io.BytesIO()
    to_bytes(display).save(buffer, "JPEG", quality=quality, subsampling=0)
    with Image.open(buffer) as image:
        return np.asarray(image, np.float32)


def edit(rng: np.random.Generator, display: Picture) -> Picture:
    """What people do to a whole photo before they send it: nothing, sharpen, rescale, grade, save again, or grain."""
    size, kind = display.shape[0], rng.integers(6)
    if kind == 1:
        filtered = to_bytes(display).filter(
            ImageFilter.UnsharpMask(radius=1.2, percent=int(rng.integers(20, 70)), threshold=0)
        )
        return np.asarray(filtered, np.float32)
    if kind == 2:
        smaller = round(size * rng.uniform(0.80, 0.96))
        shrunk = to_bytes(display).resize((smaller, smaller), Image.Resampling.LANCZOS)
        return np.asarray(shrunk.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    if kind == 3:
        grey = display.mean(axis=-1, keepdims=True)
        graded = grey + rng.uniform(0.75, 1.3) * (display - grey)
        return np.clip(128 + rng.uniform(0.8, 1.2) * (graded - 128), 0, 255)
    if kind == 4:
        return jpeg_pass(display, int(rng.integers(70, 93)))
    if kind == 5:
        return display + rng.uniform(1.5, 4) * rng.standard_normal((size, size, 1), dtype=np.float32)
    return display


def ship(display: Picture, quality: int) -> bytes:
    """The file of a set: baseline JPEG, 4:2:0, no metadata; the one encode both classes end with."""
    buffer = io.BytesIO()
    to_bytes(display).save(buffer, "JPEG", quality=quality, subsampling=2, optimize=False, progressive=False)
    return buffer.getvalue()
