"""The photo cache: every photo decoded once, kept on disk as one memory-mapped array."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray
from tqdm import tqdm

from detector.decode import decode_image
from detector.errors import FileError, ImageError
from detector.files import atomic_write, read_json, write_json
from detector.spec import ImageSpec
from training.data.equalise import equalised
from training.data.photos import Photo

VERSION = 1  # a change of decoding that moves pixels makes older caches stale


@dataclass(frozen=True)
class PhotoCache:
    """Decoded photos. path: a .npy of uint8[N, size, size, 3], row for row the photos it was made from.

    unreadable: name to reason for the photos whose rows are empty.
    """

    path: Path
    unreadable: dict[str, str]

    def pixels(self) -> NDArray[np.uint8]:
        """uint8[N, size, size, 3], read-only, memory-mapped: nothing is loaded before it is looked at."""
        return np.load(self.path, mmap_mode="r")


def open_cache(
    photos: Sequence[Photo],
    fingerprint: str,
    spec: ImageSpec,
    directory: Path,
    *,
    equalise: bool = False,
    progress: bool = False,
) -> PhotoCache:
    """The cache of these photos at this spec, made when `directory` has none.

    equalise: put each through the JPEG encode of `training.data.equalise`, drawn by its row.
    The cache is found by content and spec, so it is never stale. Raises `FileError` when the disk has no room for it.
    """
    identity = json.dumps([VERSION, fingerprint, spec.to_dict()] + ["equalised"] * equalise, sort_keys=True)
    path = directory / f"{hashlib.sha256(identity.encode()).hexdigest()[:20]}.npy"
    index = path.with_suffix(".json")
    if not (path.is_file() and index.is_file()):
        directory.mkdir(parents=True, exist_ok=True)
        with new_array(path, np.uint8, (len(photos), *spec.shape), "decoded photos") as pixels:
            unreadable = _decode_all(photos, spec, pixels, equalise, progress)
        write_json(index, unreadable)
    return PhotoCache(path, read_json(index))


def _decode_all(photos: Sequence[Photo], spec: ImageSpec, pixels: np.memmap, equalise: bool, progress: bool) -> dict[str, str]:
    def decode(row: int) -> str | None:
        try:
            decoded = decode_image(photos[row].path.read_bytes(), spec)
            pixels[row] = equalised(decoded, row) if equalise else decoded
        except ImageError as error:
            return error.message
        except OSError as error:
            return str(error.strerror)
        return None

    # Threads, not processes: Pillow decodes and resizes without the interpreter lock (1.9x on 2 cores).
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = list(
            tqdm(
                pool.map(decode, range(len(photos))),
                total=len(photos),
                desc="decoding photos",
                unit="photo",
                disable=not progress,
                leave=False,
            )
        )
    return {photo.name: reason for photo, reason in zip(photos, reasons, strict=True) if reason is not None}


@contextmanager
def new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...], what: str) -> Iterator[np.memmap]:
    """An array to fill; `path` is there, as a .npy, once it has been filled without an error.

    Raises `FileError` when the disk has no room for so much of `what`.
    """
    needed, free = prod(shape) * np.dtype(dtype).itemsize, shutil.disk_usage(path.parent).free
    if needed > free:
        raise FileError(
            f"the cache of {what} needs {needed / 1e9:.1f} GB and {path.parent} has {free / 1e9:.1f} GB free; "
            "give another place with --cache-dir, or a smaller --size"
        )
    with atomic_write(path) as partial:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=dtype, shape=shape)
        yield array
        array.flush()
