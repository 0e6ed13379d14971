"""The one way from an encoded photo to pixels; training, export, serving and benchmarks all come through here."""

from __future__ import annotations

import struct
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from detector.errors import (
    CorruptImage,
    EmptyImage,
    ImageError,
    ImageTooLarge,
    TruncatedImage,
    UnsupportedFormat,
    ZeroSizedImage,
)
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
# First bytes of what people send by mistake, so that the refusal can name it.
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
    image = _open(bytes(data), spec)
    try:
        # Scaled decoding stops at the last power of two that still has `size` pixels on the shorter side,
        # so the antialiased resize below always has at least one source pixel for each one it makes.
        image.draft("RGB", (spec.size, spec.size))
        image.load()
        picture = _to_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, zlib.error …
        raise _undecodable(bytes(data), str(image.format), error) from None
    # Only now: Pillow's PNG plugin loads the pixels to find EXIF, and a failure swallowed there would leave half a picture.
    orientation = _orientation(image)
    if orientation in _TRANSPOSE:
        picture = picture.transpose(_TRANSPOSE[orientation])
    width, height = picture.size
    box = None
    if spec.resize == "crop":
        side = min(width, height)
        box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    resized = picture.resize((spec.size, spec.size), _RESAMPLING[spec.interpolation], box=box)
    return np.array(resized, dtype=np.uint8)


def _open(data: bytes, spec: ImageSpec) -> ImageFile.ImageFile:
    """Read the header only, and hold it against the bounds."""
    try:
        image = Image.open(BytesIO(data), formats=ACCEPTED_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("more than Pillow's own bound", spec) from None
    except MemoryError:
        raise
    except Exception:  # Pillow raises UnidentifiedImageError, and others from inside a header's parser
        raise _unopened(data, spec) from None
    width, height = image.size
    if width < 1 or height < 1:
        raise ZeroSizedImage(f"the image is {width}x{height} pixels; both sides must be at least 1")
    if width * height > spec.max_pixels:
        raise _too_large(f"{width}x{height} pixels", spec)
    return image


def _too_large(what: str, spec: ImageSpec) -> ImageTooLarge:
    return ImageTooLarge(f"the image has {what}; at most {spec.max_pixels} (width x height) are accepted")


def _unopened(data: bytes, spec: ImageSpec) -> ImageError:
    """Say why a header could not be read: another format, a zero side, an end too early, or damage."""
    jpeg, png = data.startswith(b"\xff\xd8"), data.startswith(b"\x89PNG\r\n\x1a\n")
    webp = data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    if png and len(data) >= 24 and data[12:16] == b"IHDR":
        width, height = struct.unpack(">II", data[16:24])
        if width == 0 or height == 0:
            return ZeroSizedImage(f"the image is {width}x{height} pixels; both sides must be at least 1")
        if width * height > spec.max_pixels:
            return _too_large(f"{width}x{height} pixels", spec)
    if jpeg and _jpeg_side_is_zero(data):
        return ZeroSizedImage("the image has a side of 0 pixels; both sides must be at least 1")
    if jpeg or png or webp:
        name = "JPEG" if jpeg else "PNG" if png else "WebP"
        return _undecodable(data, name, None)
    return UnsupportedFormat(f"this is {_name_of(data)}; {_ACCEPTED}")


def _jpeg_side_is_zero(data: bytes) -> bool:
    """Whether the first frame header (SOFn, ITU-T T.81 B.2.2) names a height or width of zero."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[at + 5 : at + 7] == b"\0\0" or data[at + 7 : at + 9] == b"\0\0"
        at += 2 + max(length, 2)
    return False


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
        # A cut in the middle of a character is still text.
        if error.start < min(len(data), 256) - 4:
            return "not a known image format"
    return "text" if b"\0" not in data[:256] else "not a known image format"


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1–8 (CIPA DC-008 4.6.4 A); a damaged EXIF block must not cost the photo."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # the EXIF parser raises whatever its garbage led it to
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow clips instead of scaling when it converts, so scale here.
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _undecodable(data: bytes, name: str, error: Exception | None) -> TruncatedImage | CorruptImage:
    """A file of an accepted format that gave no picture: whether it ends too early, or is damaged inside."""
    complete = {
        "JPEG": data.rstrip(b"\0").endswith(b"\xff\xd9"),
        "PNG": b"IEND" in data[-64:],
        "WEBP": len(data) >= 12 and int.from_bytes(data[4:8], "little") + 8 <= len(data),
    }
    # Pillow has no type for a file that ends too early; the words are the only sign where the end looks right.
    if not complete.get(name.upper(), True) or "truncated" in str(error):
        return TruncatedImage(f"the {name} file ends before the picture does ({len(data)} bytes); send it whole")
    return CorruptImage(f"the {name} file is damaged and can't be decoded")
