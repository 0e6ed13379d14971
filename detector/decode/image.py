"""Decode one encoded photo."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from detector.decode.color import to_srgb, without_gamma
from detector.decode.outline import check_outline, check_sides
from detector.errors import (
    CorruptImage,
    EmptyImage,
    ImageError,
    ImageTooLarge,
    TruncatedImage,
    UniformImage,
    UnsupportedFormat,
)
from detector.spec import ImageSpec

ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP")
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
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


@dataclass(frozen=True)
class DecodedPhoto:
    """What the model sees of a photo, and what was done to it.

    pixels: uint8[size, size, 3], RGB, C-contiguous. format: JPEG, PNG or WEBP. width, height: in pixels, as stored.
    orientation: by EXIF, from 1 to 8, which was undone; 1 is upright. cropped: share of the photo's area that the centre crop
    left out, from 0 to 1; 0 with `stretch`.
    """

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int
    orientation: int
    cropped: float


def decode_image(data: bytes | bytearray | memoryview, spec: ImageSpec) -> NDArray[np.uint8]:
    """Decode an encoded photo to the pixels that the model sees.

    data: a whole JPEG, PNG or WebP file. The first frame of an animation is taken, EXIF orientation is applied, alpha
        is flattened on white, and palette, grey, 16-bit and CMYK pictures become RGB. Colours are converted to sRGB by the
        file's profile, where the spec says so. Large JPEGs are decoded at 1/2, 1/4 or 1/8 by the DCT (libjpeg scaled
        decoding), never below the size that `spec` asks for.
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
    check_outline(data, spec)
    image = open_photo(data, spec)
    width, height = image.size
    try:
        # Scaled decoding stops at the last power of two that leaves `size` pixels on the shorter side, so the antialiased
        # resize below has at least one source pixel for each pixel that it makes.
        image.draft("RGB", (spec.size, spec.size))
        image.load()
        small = _in_color(_resize(_resizable(image, spec), spec), image, spec)
    except MemoryError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, EOFError, zlib.error …
        raise _undecodable(data, str(image.format), error) from None
    # EXIF is read after the pixels: Pillow's PNG plugin loads the pixels to find it, and hides a failure that leaves half a
    # picture. Turning the small square gives the same pixels but for rounding, without a second copy of a large photo.
    orientation = _orientation(image)
    if orientation in _TRANSPOSE:
        small = small.transpose(_TRANSPOSE[orientation])
    pixels = _on_white(small) if small.mode == "RGBa" else np.array(small.convert("RGB"))
    # Most photos differ within their first row, so the rest is compared for few.
    if (pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all():
        red, green, blue = pixels[0, 0].tolist()
        raise UniformImage(
            f"every pixel of the picture has the same colour, rgb({red}, {green}, {blue}); there is nothing to judge"
        )
    cropped = 1 - min(width, height) / max(width, height) if spec.resize == "crop" else 0.0
    return DecodedPhoto(pixels, str(image.format), width, height, orientation, cropped)


def open_photo(data: bytes, spec: ImageSpec) -> ImageFile.ImageFile:
    """Open an image from its header and check its sides; no pixel is decoded. Raises `ImageError`."""
    try:
        # Not by `Image.open`, whose own bound on pixels is for the whole process and below what scaled decoding can do.
        if data.startswith(_JPEG):
            image: ImageFile.ImageFile = JpegImagePlugin.JpegImageFile(BytesIO(data))
        elif data.startswith(_PNG):
            image = PngImagePlugin.PngImageFile(BytesIO(data))
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            image = WebPImagePlugin.WebPImageFile(BytesIO(data))
        else:
            raise UnsupportedFormat(f"this is {_name_of(data)}; {_ACCEPTED}")
    except (MemoryError, ImageError):
        raise
    except Image.DecompressionBombError:
        raise ImageTooLarge(f"the image has more pixels than Pillow decodes: {2 * (Image.MAX_IMAGE_PIXELS or 0)}") from None
    except Exception:  # Pillow raises SyntaxError, and others from inside a header's parser
        raise _unopened(data) from None
    check_sides(*image.size, spec.max_jpeg_pixels if image.format == "JPEG" else spec.max_pixels)
    return image


def _unopened(data: bytes) -> ImageError:
    """The error for a header that can't be read: a truncated file or a damaged one."""
    return _undecodable(data, "JPEG" if data.startswith(_JPEG) else "PNG" if data.startswith(_PNG) else "WebP", None)


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
    """EXIF orientation 1–8 (CIPA DC-008 4.6.4 A), 1 when the EXIF block is missing or damaged.

    `Image.getexif` would also believe XMP and comments of old editors, which browsers do not.
    """
    if not (block := image.info.get("exif")):
        return 1
    try:
        exif = Image.Exif()
        exif.load(block)
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # the EXIF parser raises many kinds of errors on damaged data
        return 1


def _resizable(image: Image.Image, spec: ImageSpec) -> Image.Image:
    """The photo in a mode whose values may be averaged: L, RGB, RGBa, which is RGB times alpha, or inks with their profile.

    Conversions that commute with averaging happen after the resize: the largest accepted photo takes 400 MB in each mode.
    """
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        # 16-bit grey: Pillow clips instead of scaling when it converts, so scale here.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return (image if image.mode == "RGBA" else image.convert("RGBA")).convert("RGBa")
    if image.mode == "CMYK" and spec.color == "srgb" and image.info.get("icc_profile"):
        return image
    return image.convert("RGB")


def _resize(image: Image.Image, spec: ImageSpec) -> Image.Image:
    width, height = image.size
    box = None
    if spec.resize == "crop":
        side = min(width, height)
        box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    return image.resize((spec.size, spec.size), _RESAMPLING[spec.interpolation], box=box)


def _in_color(small: Image.Image, image: Image.Image, spec: ImageSpec) -> Image.Image:
    """The small picture in the colours that the spec asks for, mode L, RGB or RGBa."""
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma")
    if spec.color == "stored" or not (profile or gamma):
        return small
    straight = small.convert("RGBA") if small.mode == "RGBa" else small
    if profile:
        # Grey with alpha, with a key, of one bit, and of sixteen are no longer of mode L here.
        grey = image.mode in ("1", "LA", "L", "I;16") and small.mode != "L"
        found = to_srgb(straight, profile, grey=grey)
    else:
        found = straight if "srgb" in image.info else without_gamma(straight, gamma)
    if found is straight:
        return small
    return found.convert("RGBa") if found.mode == "RGBA" else found


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
