"""Bounds on a photo's sides and on the parts of its file, which hold before anything is decoded."""

from __future__ import annotations

from detector.errors import CorruptImage, ImageTooLarge, ImageTooSmall, ZeroSizedImage

MIN_SIDE = 32  # pixels: of a smaller picture nothing can be said
# A WebP is in memory four times while libwebp and Pillow decode it, AVIF and HEIC up to five times, and a PNG of sixteen bits
# with a transparent colour is decoded twice; all else is there once or twice. So these count double, and nothing takes more
# than 0.9 GB.
DOUBLE = 2
# Pillow skips a file's parts in Python, at about a microsecond each: 16 MiB of the smallest parts take seven seconds.
MAX_PARTS = 100_000


def check_sides(width: int, height: int, max_pixels: int) -> None:
    """Check a picture's sides in pixels. Raises `ZeroSizedImage`, `ImageTooSmall`, or `ImageTooLarge` above `max_pixels`."""
    if width < 1 or height < 1:
        raise ZeroSizedImage(f"the image is {width}x{height} pixels; both sides must be at least {MIN_SIDE}")
    if min(width, height) < MIN_SIDE:
        raise ImageTooSmall(f"the image is {width}x{height} pixels; both sides must be at least {MIN_SIDE}")
    if width * height > max_pixels:
        raise ImageTooLarge(f"the image has {width}x{height} pixels; at most {max_pixels} (width x height) are accepted")


def check_parts(count: int, most: int, name: str, parts: str) -> None:
    """Raises `CorruptImage` for a file in more parts than any camera or editor writes."""
    if count > most:
        raise CorruptImage(
            f"the {name} file is in more than {most} {parts}, as no camera or editor writes it; save the photo again"
        )
