"""Modes: pictures in grey, palettes, inks, sixteen bits and with alpha become RGB on white."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from detector.decode.color import to_srgb, without_gamma
from detector.spec import ImageSpec

_AT_ONCE = 2**20  # pixels that are converted in one piece


def resizable(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """The photo in a mode whose values may be averaged: L, RGB, RGBa, which is RGB times alpha, or inks with their profile.

    Conversions that commute with averaging happen after the resize: the largest accepted photo takes 400 MB in each mode.
    """
    if image.mode in ("L", "RGB") and "transparency" not in image.info and "low_bytes" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _sixteen_bits(image)
    if low := image.info.get("low_bytes"):
        return _times_alpha(_with_key(image, low, image.info["key"]))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return _times_alpha(image)
    if image.mode == "CMYK" and spec.color == "srgb" and image.info.get("icc_profile"):
        return image
    return image.convert("RGB")


def in_color(picture: Image.Image, image: Image.Image, spec: ImageSpec) -> Image.Image:
    """A picture that `resizable` made of `image`, perhaps scaled, in the colours of the spec: mode L, RGB or RGBa."""
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
    if spec.color == "stored" or not (profile or gamma):
        return picture
    straight = picture.convert("RGBA") if picture.mode == "RGBa" else picture
    if profile:
        # Grey with alpha, with a key or of one bit is no longer of mode L here.
        grey = image.mode in ("1", "LA", "L", "I;16") and picture.mode != "L"
        found = to_srgb(straight, profile, grey=grey)
    else:
        found = without_gamma(straight, gamma)
    if found is straight:
        return picture
    return found.convert("RGBa") if found.mode == "RGBA" else found


def on_white(image: Image.Image) -> NDArray[np.uint8]:
    """A picture over white, uint8[H, W, 3]."""
    if image.mode != "RGBa":
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    pixels = np.asarray(image).astype(np.int16)
    white: NDArray[np.uint8] = np.clip(pixels[:, :, :3] + 255 - pixels[:, :, 3:], 0, 255).astype(np.uint8)
    return white


def _times_alpha(image: Image.Image) -> Image.Image:
    """A picture with alpha, a key or a palette in RGBa."""
    if image.width * image.height <= _AT_ONCE:
        return (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    # By bands, so that a large one is in memory twice and not three times.
    found, height = Image.new("RGBa", image.size), max(1, _AT_ONCE // image.width)
    for top in range(0, image.height, height):
        band = image.crop((0, top, image.width, min(top + height, image.height)))
        found.paste(_times_alpha(band), (0, top))
    return found


def _sixteen_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits in 8, with alpha where the file names a transparent level.

    Pillow clips instead of scaling when it converts.
    """
    levels = np.asarray(image)
    grey = Image.fromarray((levels >> 8).astype(np.uint8))
    if "key" not in image.info:
        return grey
    alpha = Image.fromarray(np.where(levels == image.info["key"][0], 0, 255).astype(np.uint8))
    return Image.merge("RGBA", (grey, grey, grey, alpha)).convert("RGBa")


def _with_key(high: Image.Image, low: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """RGB with alpha: clear where both bytes of all three samples are the key's."""
    alpha = None
    for channel, sample in enumerate(key):
        for picture, byte in ((high, sample >> 8), (low, sample & 255)):
            differs = picture.getchannel(channel).point([0 if level == byte else 255 for level in range(256)])
            alpha = ImageChops.lighter(alpha, differs) if alpha else differs
    if alpha:
        high.putalpha(alpha)
    return high
