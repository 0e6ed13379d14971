"""The photo cache: every photo decoded once, kept on disk as one memory-mapped array."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray

from detector.decode import decode_image
from detector.errors import FileError, ImageError
from detector.files import atomic_write, read_json, write_json
from detector.spec import ImageSpec
from training.data.equalise import equalised
from training.data.facts import PhotoFacts, read_facts
from training.data.photos import Photo, fingerprint

VERSION = 3  # a change of decoding that moves pixels makes older caches stale


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


@dataclass(frozen=True)
class ReadPhotos:
    """What one pass over the files of photos gives: the facts of each, the fingerprint of all, and their pixels."""

    facts: list[PhotoFacts]
    fingerprint: str
    cache: PhotoCache


def read_photos(
    photos: Sequence[Photo], spec: ImageSpec, kept_in: Path, *, equalise: bool = False, progress: bool = False
) -> ReadPhotos:
    """Read photos, opening each file once, and decode them into a cache in `kept_in` unless it is there.

    equalise: put each through the JPEG encode of `training.data.equalise`, drawn by its row.
    The cache is found by names, spec and content, so it is never stale. Only where the contents of files changed under the
    same names are they opened a second time. Raises `FileError` when the disk has no room.
    """
    kept_in.mkdir(parents=True, exist_ok=True)
    decoding = {k: v for k, v in spec.to_dict().items() if k not in ("mean", "std")}  # which a network applies to the pixels
    wanted = json.dumps([VERSION, decoding, equalise, [photo.name for photo in photos]], sort_keys=True)
    prefix = hashlib.sha256(wanted.encode()).hexdigest()[:16]

    def place(facts: list[PhotoFacts]) -> tuple[str, Path]:
        content = fingerprint(photos, [fact.sha256 for fact in facts])
        return content, kept_in / f"{prefix}-{content[:20]}.npy"

    if any(kept_in.glob(f"{prefix}-*.npy")):
        facts = read_facts(photos, kept_in, progress=progress)
        content, path = place(facts)
        if path.is_file() and path.with_suffix(".json").is_file():
            return ReadPhotos(facts, content, PhotoCache(path, read_json(path.with_suffix(".json"))))
    unreadable: dict[int, str] = {}
    draft = kept_in / f"{os.getpid()}-{prefix}.npy"
    with new_array(draft, np.uint8, (len(photos), *spec.shape), "decoded photos") as pixels:

        def decode(row: int, data: bytes) -> None:
            try:
                decoded = decode_image(data, spec)
            except ImageError as error:
                unreadable[row] = error.message
            else:
                pixels[row] = equalised(decoded, row) if equalise else decoded

        facts = read_facts(photos, kept_in, progress=progress, each=decode)
    unreadable |= {row: fact.problem for row, fact in enumerate(facts) if fact.problem is not None}
    content, path = place(facts)
    write_json(path.with_suffix(".json"), {photos[row].name: unreadable[row] for row in sorted(unreadable)})
    draft.replace(path)
    return ReadPhotos(facts, content, PhotoCache(path, read_json(path.with_suffix(".json"))))


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
