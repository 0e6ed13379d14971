"""Decode one encoded photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.decode import modes
from detector.decode.opening import open_photo, undecodable
from detector.decode.orientation import orientation_of, upright
from detector.errors import EmptyImage, UniformImage
from detector.spec import ImageSpec

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class DecodedPhoto:
    """What the model sees of a photo, and what was done to it.

    pixels: uint8[size, size, 3], RGB, C-contiguous. format: one of `ACCEPTED_FORMATS`, or HEIF. width, height: in pixels, as
    stored. orientation: by EXIF, from 1 to 8, which was undone; 1 is upright. cropped: share of the photo's area that the
    centre crop left out, from 0 to 1; 0 with `stretch`.
    """

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int
    orientation: int
    cropped: float


def decode_image(data: bytes | bytearray | memoryview, spec: ImageSpec) -> NDArray[np.uint8]:
    """Decode an encoded photo to the pixels that the model sees.

    data: a whole JPEG, PNG, WebP or AVIF file, or a HEIC where pillow-heif is installed. The first frame of an animation is
        taken, EXIF orientation is applied, alpha is flattened on white, and palette, grey, 16-bit and CMYK pictures become
        RGB. Colours are converted to sRGB by the file's profile, where the spec says so. Large JPEGs are decoded at 1/2, 1/4
        or 1/8 by the DCT (libjpeg scaled decoding), never below the size that `spec` asks for.
    Returns uint8[size, size, 3], RGB, C-contiguous. `decode_photo` also says what was done.

    Raises (code, status): `EmptyImage` (empty_image, 400), `UnsupportedFormat` (unsupported_format, 415),
    `ImageTooLarge` (image_too_large, 413), `ImageTooSmall` (image_too_small, 422), `ZeroSizedImage` (zero_sized_image, 422),
    `TruncatedImage` (truncated_image, 422), `CorruptImage` (corrupt_image, 422), `UniformImage` (image_uniform, 422).
    All are `ImageError`.
    """
    return decode_photo(data, spec).pixels


def decode_photo(data: bytes | bytearray | memoryview, spec: ImageSpec) -> DecodedPhoto:
    """Decode an encoded photo as `decode_image` does, and say what was done to it. Raises what `decode_image` raises."""
    if len(data) == 0:
        raise EmptyImage("the image is empty: 0 bytes")
    data = bytes(data)
    image = open_photo(data, spec)
    width, height = image.size
    try:
        # Scaled decoding stops at the last power of two that leaves `size` pixels on the shorter side, so the antialiased
        # resize below has at least one source pixel for each pixel that it makes.
        image.draft("RGB", (spec.size, spec.size))
        image.load()
        small = modes.in_color(_resize(modes.resizable(image, spec), spec), image, spec)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, zlib.error …
        raise undecodable(data, str(image.format), error) from None
    # Turning the small square gives the same pixels but for rounding, without a second copy of a large photo.
    orientation = orientation_of(image)
    pixels = modes.on_white(upright(small, orientation))
    # Most photos differ within their first row, so the rest is compared for few.
    row = pixels[0].tobytes()
    if row == row[:3] * spec.size and (pixels == pixels[0, 0]).all():
        red, green, blue = pixels[0, 0].tolist()
        raise UniformImage(
            f"every pixel of the picture has the same colour, rgb({red}, {green}, {blue}); there is nothing to judge"
        )
    cropped = 1 - min(width, height) / max(width, height) if spec.resize == "crop" else 0.0
    return DecodedPhoto(pixels, str(image.format), width, height, orientation, cropped)


def whole_image(data: bytes, spec: ImageSpec | None = None) -> Image.Image:
    """A photo at its full size, mode RGB: upright, on white and in the colours that `spec` asks for, sRGB without one.

    It is what `decode_image` has before it scales the picture down. Raises what `decode_image` raises, but `UniformImage`.
    """
    spec = spec or ImageSpec()
    if not data:
        raise EmptyImage("the image is empty: 0 bytes")
    image = open_photo(data, spec)
    try:
        image.load()
        whole = modes.in_color(modes.resizable(image, spec), image, spec)
    except MemoryError:
        raise
    except Exception as error:
        raise undecodable(data, str(image.format), error) from None
    return Image.fromarray(modes.on_white(upright(whole, orientation_of(image))))


def _resize(image: Image.Image, spec: ImageSpec) -> Image.Image:
    width, height = image.size
    box = None
    if spec.resize == "crop":
        side = min(width, height)
        box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    return image.resize((spec.size, spec.size), _RESAMPLING[spec.interpolation], box=box)
