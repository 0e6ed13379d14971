"""Images that parity is measured on: photos from a folder, or drawn pictures where there are none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from detector.decode import decode_image
from detector.errors import FileError, ImageError
from detector.files import shown
from detector.score import find_files
from detector.spec import ImageSpec
from export.runners import Pixels

AT_LEAST = 32
Item = TypeVar("Item")


def photos_in(folder: Path, spec: ImageSpec, count: int = AT_LEAST) -> Pixels:
    """`count` photos spread evenly over `folder` and below, in Parquet and tar files too, decoded: uint8[N, H, W, 3].

    Raises `FileError` when fewer than that many can be decoded.
    """
    files = find_files([folder]).photos
    images: list[Pixels] = []
    for file in spread_evenly(files):
        if len(images) == count:
            break
        try:
            images.append(decode_image(file.read_bytes(), spec))
        except (ImageError, OSError):
            continue
    if len(images) < count:
        raise FileError(
            f"{shown(folder)}: parity needs {count} photos (JPEG, PNG, WebP), and {len(images)} can be decoded there"
        )
    return np.stack(images)


def spread_evenly(items: Sequence[Item]) -> list[Item]:
    """The items in an order of which any first part is spread evenly over them (multiples of the golden ratio)."""
    return [items[i] for i in np.argsort(np.arange(len(items)) * 0.6180339887498949 % 1, kind="stable")]


def drawn(spec: ImageSpec, count: int = AT_LEAST) -> Pixels:
    """`count` drawn pictures, each through a real JPEG file: uint8[N, H, W, 3], the same in every run."""
    return np.stack([decode_image(data, spec) for data in _jpegs(2 * spec.size, count)])


def _jpegs(size: int, count: int) -> Iterator[bytes]:
    """Smooth fields of colour from coarse to fine, with and without sensor noise, from dark to bright."""
    rng = np.random.default_rng(0)
    for i in range(count):
        cells = 2 + i % 15
        small = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        field = np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
        field = field * rng.uniform(0.3, 1) + rng.normal(0, 12 * (i % 3), field.shape)
        out = BytesIO()
        Image.fromarray(field.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=60 + i)
        yield out.getvalue()
