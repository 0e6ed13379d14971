"""WebP: the sides in a file's header."""

from __future__ import annotations

import struct

from detector.decode.bounds import DOUBLE, check_sides
from detector.spec import ImageSpec


def is_webp(data: bytes) -> bool:
    """Whether a file begins as a WebP (RFC 9649, 2.4)."""
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def check_outline(data: bytes, spec: ImageSpec) -> None:
    """Check the sides of the canvas. Raises `ZeroSizedImage`, `ImageTooSmall`, `ImageTooLarge`."""
    if sides := _sides(data):
        check_sides(*sides, spec.max_pixels // DOUBLE)


def _sides(data: bytes) -> tuple[int, int] | None:
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
