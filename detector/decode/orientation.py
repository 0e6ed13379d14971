"""Orientation: how a camera was held, as EXIF says, undone."""

from __future__ import annotations

from PIL import ExifTags, Image

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation 1–8 (CIPA DC-008 4.6.4 A); 1 where the EXIF block is missing, damaged or says something else.

    `Image.getexif` would also believe XMP and old editors' comments, which browsers do not.
    """
    if not (block := image.info.get("exif")):
        return 1
    try:
        exif = Image.Exif()
        exif.load(block)
        found = int(exif.get(ExifTags.Base.Orientation, 1))
    except Exception:  # the EXIF parser raises many kinds of errors on damaged data
        return 1
    return found if found in _TRANSPOSE else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """A picture turned as its orientation asks."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image
