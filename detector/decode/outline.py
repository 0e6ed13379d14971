"""Limits on an encoded photo's sides and number of parts, checked before it is decoded."""

from __future__ import annotations

import re
import struct

from detector.errors import CorruptImage, ImageTooLarge, ImageTooSmall, ZeroSizedImage
from detector.spec import ImageSpec

MIN_SIDE = 32  # pixels: of a smaller picture nothing can be said

# Pillow skips a file's parts in Python, at about a microsecond each: 16 MiB of the smallest parts take seven seconds.
MAX_PARTS = 100_000
# libjpeg passes over the whole picture once for each scan, and a scan may be ten bytes: a megabyte of scans takes minutes.
# Encoders write about ten; the progressive mode can use fewer than thirty in four components.
MAX_SCANS = 50
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # neither a stuffed byte, nor a restart, nor fill (T.81 B.1.1)
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def check_outline(data: bytes, spec: ImageSpec) -> None:
    """Check the sides in the header of a JPEG, PNG or WebP file, and how many parts the file has.

    Other formats, damaged and truncated files pass: the decoder's errors describe them better.
    Raises `ZeroSizedImage`, `ImageTooLarge`, `ImageTooSmall`, `CorruptImage`.
    """
    max_pixels = spec.max_pixels
    if data.startswith(b"\xff\xd8"):
        _check_jpeg(data, spec.max_jpeg_pixels)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data, max_pixels)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP" and (sides := _webp_sides(data)):
        check_sides(*sides, max_pixels)


def check_sides(width: int, height: int, max_pixels: int) -> None:
    """Check a picture's sides in pixels. Raises `ZeroSizedImage`, `ImageTooSmall`, or `ImageTooLarge` above `max_pixels`."""
    if width < 1 or height < 1:
        raise ZeroSizedImage(f"the image is {width}x{height} pixels; both sides must be at least 1")
    if min(width, height) < MIN_SIDE:
        raise ImageTooSmall(f"the image is {width}x{height} pixels; both sides must be at least {MIN_SIDE}")
    if width * height > max_pixels:
        raise ImageTooLarge(f"the image has {width}x{height} pixels; at most {max_pixels} (width x height) are accepted")


def _check_jpeg(data: bytes, max_pixels: int) -> None:
    """Check the frame's sides, the segments and bytes before the first scan, and the scans (ITU-T T.81 B.2)."""
    at, parts, scans = 2, 0, 0
    while marker := _JPEG_MARKER.search(data, at):
        kind, gap, at = data[marker.end() - 1], marker.start() - at, marker.end()
        if scans and kind == _EOI:
            return
        if not scans:
            parts += gap + 1
            _bound(parts, MAX_PARTS, "JPEG", "segments")
        if kind in (_SOI, _EOI, _TEM):  # markers without a segment
            continue
        if kind in _FRAMES and not scans and at + 7 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 3)
            check_sides(width, height, max_pixels)
        if kind == _SOS:
            scans += 1
            _bound(scans, MAX_SCANS, "JPEG", "scans")
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    if not scans:
        _bound(parts + len(data) - at, MAX_PARTS, "JPEG", "segments")


def _check_png(data: bytes, max_pixels: int) -> None:
    """Check the header's sides and the number of chunks (PNG specification, 5.3 and 11.2)."""
    if data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        check_sides(width, height, max_pixels)
    at, parts = 8, 0
    while at < len(data) and data[at + 4 : at + 8] != b"IEND":
        parts += 1
        _bound(parts, MAX_PARTS, "PNG", "chunks")
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _webp_sides(data: bytes) -> tuple[int, int] | None:
    """Width and height from the first chunk (RFC 9649, 2.5 to 2.7), None where it has none."""
    if data[12:16] == b"VP8X" and len(data) >= 30:
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and len(data) >= 30:
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bound(count: int, most: int, name: str, parts: str) -> None:
    if count > most:
        raise CorruptImage(
            f"the {name} file is in more than {most} {parts}, as no camera or editor writes it; save the photo again"
        )
