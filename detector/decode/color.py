"""Colour: what an embedded profile or a PNG's gamma describes, converted to sRGB on the small picture."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

# The largest profiles in use describe printing inks: under 3 MB.
MOST_PROFILE_BYTES = 4 * 2**20
# libpng takes a gamma for that of sRGB where both differ by less than a twentieth (PNG_GAMMA_THRESHOLD).
_SRGB_GAMMA, _NEAR = 0.45455, 0.05
_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
_CLASSES = (b"mntr", b"scnr", b"prtr", b"spac")  # a display's, scanner's, printer's or colour space's (ICC.1:2022, 7.2.7)


def to_srgb(image: Image.Image, profile: bytes | None, *, grey: bool = False) -> Image.Image:
    """A picture of mode L, RGB, RGBA or CMYK in sRGB: mode RGB, or RGBA where it was; or as it is where nothing is to do.

    grey: whether the file holds grey levels, although the mode is RGB or RGBA. A profile that is damaged, absurdly large or
    not of the picture's kind is ignored, as browsers and libvips do. So is one that is sRGB's within a level.
    """
    kind = "L" if grey else image.mode.removesuffix("A")
    if not profile or len(profile) > MOST_PROFILE_BYTES or (transform := _transform(profile, kind)) is None:
        return image
    colours = image.getchannel(0) if grey else image if image.mode == kind else image.convert("RGB")
    found: Image.Image = transform.apply(colours)
    if image.mode == "RGBA":
        found.putalpha(image.getchannel("A"))
    return found


def without_gamma(image: Image.Image, gamma: float | None) -> Image.Image:
    """A picture whose samples are light to the power of `gamma`, as gAMA says of a PNG (PNG specification, 11.3.2.2), in sRGB.

    Browsers apply it, where no profile and no sRGB chunk stands above it; libvips does not.
    """
    if gamma is None or not 0.05 <= gamma <= 20 or abs(gamma / _SRGB_GAMMA - 1) < _NEAR:
        return image
    light = np.linspace(0, 1, 256) ** (1 / gamma)
    levels = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    table = np.rint(255 * levels).astype(int).tolist()
    if image.mode == "RGBA":
        return image.point([*table * 3, *range(256)])
    return image.point(table * len(image.getbands()))


@lru_cache(maxsize=32)
def _transform(profile: bytes, kind: str) -> Any:
    """What converts pictures of mode `kind` with this profile to sRGB; None where it is sRGB or of no use.

    Photos share few profiles, and a look-up costs two microseconds.
    """
    if profile[36:40] != b"acsp" or profile[12:16] not in _CLASSES or profile[16:20] != _SPACES[kind]:
        return None
    from PIL import ImageCms  # here, because it takes 3 ms and most photos need none of it

    try:
        # As libvips: relative colorimetric, without black point compensation.
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            kind,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
        return transform if _changes(transform, kind) else None
    except MemoryError:
        raise
    except Exception:  # littlecms refuses damaged profiles in many ways, and what it refuses is not used
        return None


def _changes(transform: Any, kind: str) -> bool:
    """Whether a transform moves any of 4096 colours of RGB, or 256 greys, by more than a level: names of profiles can lie."""
    if kind == "CMYK":
        return True
    steps = np.arange(256) if kind == "L" else np.arange(16) * 17
    if kind == "L":
        before = np.tile(steps, (1, 1)).astype(np.uint8)
        same = np.repeat(before[..., None], 3, axis=2)
    else:
        before = same = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(64, 64, 3).astype(np.uint8)
    after = np.asarray(transform.apply(Image.fromarray(before)))
    return bool(np.abs(after.astype(int) - same).max() > 1)
