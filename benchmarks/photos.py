"""The photos that a benchmark sends: a folder's, or pictures drawn from a fixed seed when there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from detector import FileError, ImageError, ImageSpec, UsageError, decode_image
from detector.files import PHOTO_SUFFIXES, files_below, has_photo_suffix, shown


@dataclass(frozen=True)
class Photo:
    """An encoded photo and the name it goes by in reports."""

    name: str
    data: bytes


def load_photos(directory: Path | None, count: int) -> list[Photo]:
    """At most `count` photos of a folder and its subfolders, spread evenly over them; `count` drawn ones without a folder.

    Raises `UsageError` for a count below one, `FileError` when the folder is missing or holds no photo.
    """
    if count < 1:
        raise UsageError(f"--photo-count is {count}; at least 1 photo is needed")
    if directory is None:
        return drawn_photos(count)
    if not directory.is_dir():
        raise FileError(f"{shown(directory)}: no such folder of photos")
    files = [path for path in files_below(directory) if has_photo_suffix(path)]
    if not files:
        raise FileError(f"{shown(directory)}: holds no photo ({', '.join(sorted(PHOTO_SUFFIXES))} are looked for)")
    chosen = [files[i * len(files) // count] for i in range(count)] if len(files) > count else files
    return [Photo(shown(p.relative_to(directory)), p.read_bytes()) for p in chosen]


def describe(photos: Sequence[Photo], directory: Path | None) -> str:
    """The photos in a line, for reports."""
    kilobytes = sum(len(p.data) for p in photos) / len(photos) / 1e3
    where = f"from {directory.name}" if directory else "drawn, 256 px JPEG"
    return f"{len(photos)} {where}, {kilobytes:.1f} kB on average"


def refuse_broken(photos: Sequence[Photo], spec: ImageSpec) -> None:
    """Raise `FileError` for the first that is no photo: it would only be counted as a failure of what is measured."""
    for photo in photos:
        try:
            decode_image(photo.data, spec)
        except ImageError as error:
            raise FileError(f"{photo.name}: {error.message}") from None


def drawn_photos(count: int, *, size: int = 256, seed: int = 0) -> list[Photo]:
    """`count` JPEGs of `size` x `size` smooth colour noise, the same for the same seed.

    Natural photographs have amplitude spectra near 1/f (Field, JOSA A 4:2379, 1987). This noise falls a little faster, so
    that the JPEGs weigh what 256 px portraits do, 12 kB, and take as long to decode.
    """
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    frequency[0, 0] = np.inf  # no mean: each picture is centred below
    photos = []
    for i in range(count):
        spectrum = np.fft.rfft2(rng.standard_normal((3, size, size))) / frequency**1.5
        noise = np.fft.irfft2(spectrum, s=(size, size))
        noise = 0.7 * noise[:1] + 0.3 * noise  # mostly light and dark, some colour, as in photographs
        pixels = np.clip(128 + 48 * noise / noise.std(axis=(1, 2), keepdims=True), 0, 255).astype(np.uint8)
        out = BytesIO()
        Image.fromarray(np.moveaxis(pixels, 0, 2)).save(out, "JPEG", quality=75)
        photos.append(Photo(f"drawn-{i:03d}.jpg", out.getvalue()))
    return photos
