"""Orientation: how a camera was held, as EXIF says, undone."""

from __future__ import annotations

import struct

from PIL import Image

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION, _SHORT = 0x0112, 3


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1–8 (CIPA DC-008 4.6.4 A); 1 where the EXIF block is missing, damaged or says something else.

    It is read as browsers read it: one number of 16 bits in the first directory. `Image.getexif` would also believe XMP and
    old editors' comments, and parses the whole block.
    """
    block = image.info.get("exif") or b""
    tiff = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if not order:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, length, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == _ORIENTATION:
                return value if kind == _SHORT and length == 1 and value in _TRANSPOSE else 1
    except struct.error:
        pass
    return 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """A picture turned as its orientation asks."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image
