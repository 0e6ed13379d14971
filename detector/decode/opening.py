"""Open an encoded photo: which format it is, whether it may be decoded, and what beside its pixels decides how it looks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin, features

from detector.decode import boxes, jpeg, png, webp
from detector.decode.bounds import DOUBLE, check_sides
from detector.decode.kinds import name_of
from detector.errors import CorruptImage, ImageError, ImageTooLarge, TruncatedImage, UnsupportedFormat
from detector.spec import ImageSpec

# Pillow reads AVIF since 11.3, where it was built with libavif, as its wheels are.
_HAS_AVIF = features.check("avif") if "avif" in features.modules else False
ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP", *(("AVIF",) if _HAS_AVIF else ()))
_ACCEPTED = "JPEG, PNG, WebP and AVIF are accepted" if _HAS_AVIF else "JPEG, PNG and WebP are accepted"
# Pillow warns about each EXIF entry that it can't read: one photo could write 65,535 lines into a server's log.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_photo(data: bytes, spec: ImageSpec) -> ImageFile.ImageFile:
    """Open an image from its header and check it; no pixel is decoded. Raises `ImageError`.

    Its `info` holds what decides how it looks: `exif`, `icc_profile`, `gamma` where no profile stands above it,
    `transparency` for Pillow's conversions, and of sixteen bits the transparent `key`, with `low_bytes` where they are RGB.
    """
    # Not by `Image.open`, whose own bound on pixels is for the whole process and below what scaled decoding can do.
    if data.startswith(jpeg.SIGNATURE):
        return _open_jpeg(data, spec)
    if data.startswith(png.SIGNATURE):
        return _open_png(data, spec)
    if webp.is_webp(data):
        webp.check_outline(data, spec)
        return _checked(_opened(WebPImagePlugin.WebPImageFile, data, data), spec.max_pixels // DOUBLE)
    brand = boxes.brand_of(data)
    if brand == "AVIF" and _HAS_AVIF:
        return _open_avif(data, spec)
    if brand == "HEIC" and (reader := _heif_reader()):
        boxes.check_outline(data, spec)
        return _checked(_opened(reader, data, data), spec.max_pixels // DOUBLE)
    hint = "; with the package pillow-heif installed it is read" if brand == "HEIC" else ""
    raise UnsupportedFormat(f"this is {name_of(data)}; {_ACCEPTED}{hint}")


def undecodable(data: bytes, name: str, error: Exception | None) -> ImageError:
    """The error for a file of an accepted format that does not decode: truncated, corrupt, or of a kind that is not read."""
    complete = {
        "JPEG": data.rstrip(b"\0").endswith(b"\xff\xd9"),
        "PNG": b"IEND" in data[-64:],
        "WEBP": len(data) >= 12 and int.from_bytes(data[4:8], "little") + 8 <= len(data),
        **dict.fromkeys(("AVIF", "HEIC", "HEIF"), boxes.is_whole(data)),
    }
    # Pillow raises no type of its own for a truncated file; where the end looks right, its message is the only sign.
    if not complete.get(name.upper(), True) or "truncated" in str(error):
        return TruncatedImage(f"the {name} file ends before the picture does ({len(data)} bytes); send it whole")
    if name == "JPEG" and jpeg.outline(data, ImageSpec()).arithmetic:
        return UnsupportedFormat(f"this is a JPEG with arithmetic coding; {jpeg.ACCEPTED}")
    return CorruptImage(f"the {name} file is damaged and can't be decoded")


def _opened(plugin: Callable[[BytesIO], Any], content: bytes, data: bytes) -> ImageFile.ImageFile:
    """The image in `content`, which is `data` as it is decoded. Raises `ImageError`."""
    try:
        image: ImageFile.ImageFile = plugin(BytesIO(content))
    except (MemoryError, ImageError):
        raise
    except Image.DecompressionBombError:
        raise ImageTooLarge(f"the image has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels, Pillow's limit") from None
    except Exception as error:  # Pillow raises SyntaxError, and others from inside a header's parser
        raise undecodable(data, _format_of(data), error) from None
    return image


def _format_of(data: bytes) -> str:
    named = ((jpeg.SIGNATURE, "JPEG"), (png.SIGNATURE, "PNG"), (b"RIFF", "WebP"))
    return next((name for magic, name in named if data.startswith(magic)), boxes.brand_of(data))


def _checked(image: ImageFile.ImageFile, max_pixels: int) -> ImageFile.ImageFile:
    check_sides(*image.size, max_pixels)
    return image


def _open_jpeg(data: bytes, spec: ImageSpec) -> ImageFile.ImageFile:
    said = jpeg.outline(data, spec)
    content = data
    if said.scans and not said.ended:
        whole = jpeg.completed(data, said)
        if whole is None:
            raise undecodable(data, "JPEG", OSError("truncated"))
        content = whole
    return _checked(_opened(JpegImagePlugin.JpegImageFile, content, data), spec.max_jpeg_pixels)


def _open_png(data: bytes, spec: ImageSpec) -> ImageFile.ImageFile:
    said = png.outline(data, spec)
    image = _checked(_opened(PngImagePlugin.PngImageFile, said.data, data), spec.max_pixels)
    image.info.pop("gamma", None)
    image.info |= {k: v for k, v in {"icc_profile": said.profile, "gamma": said.gamma}.items() if v}
    if said.key and said.depth == 16:
        image.info["key"] = said.key
        if image.mode == "RGB":
            check_sides(*image.size, spec.max_pixels // DOUBLE)
            image.info["low_bytes"] = _low_bytes(said.data, data)
    elif said.key:
        # Pillow scales samples of fewer bits to 8, and compares them with the key as it is.
        scaled = tuple(sample * 255 // ((1 << said.depth) - 1) for sample in said.key)
        image.info["transparency"] = scaled if image.mode == "RGB" else scaled[0]
    return image


def _low_bytes(content: bytes, data: bytes) -> Image.Image:
    """The low bytes of a PNG of sixteen bits in RGB, of which Pillow reads the high ones: those of the other byte order."""
    image = _opened(PngImagePlugin.PngImageFile, content, data)
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    return image


def _open_avif(data: bytes, spec: ImageSpec) -> ImageFile.ImageFile:
    from PIL import AvifImagePlugin

    # As many threads as CPUs would each take memory for a frame, in every worker.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    boxes.check_outline(data, spec)
    return _checked(_opened(AvifImagePlugin.AvifImageFile, boxes.still(data), data), spec.max_pixels // DOUBLE)


def _heif_reader() -> Callable[[BytesIO], Any] | None:
    """What opens a HEIC, where pillow-heif is installed (`unmask[heic]`)."""
    try:
        import pillow_heif
    except ImportError:
        return None
    pillow_heif.options.DECODE_THREADS = 1
    pillow_heif.options.THUMBNAILS = pillow_heif.options.DEPTH_IMAGES = pillow_heif.options.AUX_IMAGES = False
    return pillow_heif.HeifImageFile
