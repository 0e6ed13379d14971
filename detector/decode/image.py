"""Decode one encoded photo."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from detector.decode.outline import check_outline, check_sides
from detector.errors import CorruptImage, EmptyImage, ImageError, ImageTooLarge, TruncatedImage, UnsupportedFormat
from detector.spec import ImageSpec

ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP")
_ACCEPTED = "JPEG, PNG and WebP are accepted"
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# First bytes of other formats that people send, so that the error can name them.
_KNOWN_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF"),
    (b"MM\0*", "a TIFF"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"<svg", "an SVG"),
    (b"<?xml", "XML"),
    (b"<!DOCTYPE", "HTML"),
    (b"<html", "HTML"),
    (b"\0\0\x01\0", "an icon"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
)
# Pillow warns about each EXIF entry that it can't read: one photo could write 65,535 lines into a server's log.
warnings.filterwarnings("ignore", module=r"PIL\.")
_BOX_BRANDS = {b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIF", b"avif": "an AVIF", b"avis": "an AVIF"}


def decode_image(data: bytes | bytearray | memoryview, spec: ImageSpec) -> NDArray[np.uint8]:
    """Decode an encoded photo to the pixels that the model sees.

    data: a whole JPEG, PNG or WebP file. The first frame of an animation is taken, EXIF orientation is applied, alpha
        is flattened on white, and palette, grey, 16-bit and CMYK pictures become RGB. Large JPEGs are decoded at
        1/2, 1/4 or 1/8 by the DCT (libjpeg scaled decoding), never below the size that `spec` asks for.
    Returns uint8[size, size, 3], RGB, C-contiguous.

    Raises (code, status): `EmptyImage` (empty_image, 400), `UnsupportedFormat` (unsupported_format, 415),
    `ImageTooLarge` (image_too_large, 413), `ZeroSizedImage` (zero_sized_image, 422), `TruncatedImage`
    (truncated_image, 422), `CorruptImage` (corrupt_image, 422). All are `ImageError`.
    """
    if len(data) == 0:
        raise EmptyImage("the image is empty: 0 bytes")
    data = bytes(data)
    check_outline(data, spec.max_pixels)
    image = _open(data, spec)
    try:
        # Scaled decoding stops at the last power of two that leaves `size` pixels on the shorter side, so the antialiased
        # resize below has at least one source pixel for each pixel that it makes.
        image.draft("RGB", (spec.size, spec.size))
        image.load()
        small = _resize(_resizable(image), spec)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, zlib.error …
        raise _undecodable(data, str(image.format), error) from None
    # EXIF is read after the pixels: Pillow's PNG plugin loads the pixels to find it, and hides a failure that leaves half a
    # picture. Turning the small square gives the same pixels but for rounding, without a second copy of a large photo.
    orientation = _orientation(image)
    if orientation in _TRANSPOSE:
        small = small.transpose(_TRANSPOSE[orientation])
    return _on_white(small) if small.mode == "RGBa" else np.array(small.convert("RGB"))


def _open(data: bytes, spec: ImageSpec) -> ImageFile.ImageFile:
    """Open an image from its header and check its sides. Raises `ImageError`."""
    try:
        image = Image.open(BytesIO(data), formats=ACCEPTED_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(
            f"the image has too many pixels; at most {spec.max_pixels} (width x height) are accepted"
        ) from None
    except MemoryError:
        raise
    except Exception:  # Pillow raises UnidentifiedImageError, and others from inside a header's parser
        raise _unopened(data) from None
    check_sides(*image.size, spec.max_pixels)
    return image


def _unopened(data: bytes) -> ImageError:
    """The error for a header that can't be read: another format, a truncated file or a damaged one."""
    jpeg, png = data.startswith(b"\xff\xd8"), data.startswith(b"\x89PNG\r\n\x1a\n")
    webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    if jpeg or png or webp:
        name = "JPEG" if jpeg else "PNG" if png else "WebP"
        return _undecodable(data, name, None)
    return UnsupportedFormat(f"this is {_name_of(data)}; {_ACCEPTED}")


def _name_of(data: bytes) -> str:
    head = data[:64].lstrip()
    for magic, name in _KNOWN_MAGIC:
        if head[: len(magic)].lower() == magic.lower():
            return name
    if data[4:8] == b"ftyp":
        return _BOX_BRANDS.get(data[8:12], "a video or another ISO media file")
    try:
        data[:256].decode("utf-8")
    except UnicodeDecodeError as error:
        # The first 256 bytes of a text may end in the middle of a character.
        if error.start < min(len(data), 256) - 4:
            return "not a known image format"
    return "text" if b"\0" not in data[:256] else "not a known image format"


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1–8 (CIPA DC-008 4.6.4 A), 1 when the EXIF block is missing or damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the EXIF parser raises many kinds of errors on damaged data
        return 1


def _resizable(image: Image.Image) -> Image.Image:
    """The photo in a mode whose values may be averaged: L, RGB, or RGBa, which is RGB times alpha.

    Conversions that commute with averaging happen after the resize: the largest accepted photo takes 200 MB in each mode.
    """
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow clips instead of scaling when it converts, so scale here.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    return image.convert("RGB")


def _resize(image: Image.Image, spec: ImageSpec) -> Image.Image:
    width, height = image.size
    box = None
    if spec.resize == "crop":
        side = min(width, height)
        box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    return image.resize((spec.size, spec.size), _RESAMPLING[spec.interpolation], box=box)


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    """An RGBa picture over white, uint8[H, W, 3]."""
    pixels = np.asarray(image).astype(np.int16)
    on_white: NDArray[np.uint8] = np.clip(pixels[:, :, :3] + 255 - pixels[:, :, 3:], 0, 255).astype(np.uint8)
    return on_white


def _undecodable(data: bytes, name: str, error: Exception | None) -> TruncatedImage | CorruptImage:
    """The error for a file of an accepted format that does not decode: truncated or corrupt."""
    complete = {
        "JPEG": data.rstrip(b"\0").endswith(b"\xff\xd9"),
        "PNG": b"IEND" in data[-64:],
        "WEBP": len(data) >= 12 and int.from_bytes(data[4:8], "little") + 8 <= len(data),
    }
    # Pillow raises no type of its own for a truncated file; where the end looks right, its message is the only sign.
    if not complete.get(name.upper(), True) or "truncated" in str(error):
        return TruncatedImage(f"the {name} file ends before the picture does ({len(data)} bytes); send it whole")
    return CorruptImage(f"the {name} file is damaged and can't be decoded")
