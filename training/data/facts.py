"""Facts: what one pass over the files tells of each photo besides its label, kept by content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin
from scipy.fft import dctn
from scipy.ndimage import laplace
from tqdm import tqdm

from detector.decode import decode_image, open_photo
from detector.errors import ImageError
from detector.files import atomic_write
from detector.spec import ImageSpec
from training.data.photos import Photo

VERSION = 3  # a change of any fact makes kept ones stale
STORE = "facts.npz"
Encoded = bytes  # whose name is a field of `PhotoFacts`
THUMB = 48
SPEC = ImageSpec(size=128, resize="stretch")  # the whole picture, as a shortcut or a copy would show in it
_SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


@dataclass(frozen=True)
class PhotoFacts:
    """What a file says and what its picture looks like from afar.

    quantisation: a hash of a JPEG's tables. subsampling: of a JPEG's colours. red, green, blue: means from 0 to 255.
    sharpness: the log of the variance of the Laplacian, at 128 pixels. outline: perceptual hash of 256 bits, in hex.
    thumbnail: grey, `THUMB` pixels high and wide, a byte each. problem: why the photo can't be read; the picture's facts are
    then empty.
    """

    sha256: str
    bytes: int
    format: str = ""
    width: int = 0
    height: int = 0
    quantisation: str = ""
    subsampling: str = ""
    exif: bool = False
    red: float = 0.0
    green: float = 0.0
    blue: float = 0.0
    sharpness: float = 0.0
    outline: str = ""
    thumbnail: Encoded = b""
    problem: str | None = None


def read_facts(
    photos: Sequence[Photo],
    kept_in: Path | None = None,
    *,
    progress: bool = False,
    each: Callable[[int, bytes], None] | None = None,
) -> list[PhotoFacts]:
    """The facts of each photo, in order; every file is opened once.

    kept_in: folder of a `facts.npz` that saves decoding what was decoded before, by content; it is written again when
    something was added. each: called, in threads, with the row and the bytes of each file that can be read.
    """
    store = kept_in / STORE if kept_in else None
    known = _load(store) if store else {}

    def read(row: int) -> PhotoFacts:
        try:
            data = photos[row].path.read_bytes()
        except OSError as error:  # the content is not known: the reason stands for it
            return PhotoFacts(hashlib.sha256(str(error.strerror).encode()).hexdigest(), 0, problem=str(error.strerror))
        if each:
            each(row, data)
        digest = hashlib.sha256(data).hexdigest()
        return known.get(digest) or facts_of(data, digest)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # reading, hashing and decoding release the interpreter lock
        facts = list(
            tqdm(
                pool.map(read, range(len(photos))),
                total=len(photos),
                desc="reading photos",
                unit="photo",
                disable=not progress,
                leave=False,
            )
        )
    new = {fact.sha256: fact for fact in facts if fact.sha256 not in known}
    if store and new:
        _save(store, known | new)
    return facts


def outline_bits(facts: Sequence[PhotoFacts]) -> NDArray[np.bool_]:
    """The perceptual hashes of readable photos: bool[n, 256]."""
    packed = np.array([list(bytes.fromhex(fact.outline)) for fact in facts], np.uint8).reshape(len(facts), 32)
    return np.unpackbits(packed, axis=1).astype(bool)


def facts_of(data: bytes, digest: str) -> PhotoFacts:
    """The facts of one encoded photo, whose SHA-256 is `digest`."""
    try:
        pixels = decode_image(data, SPEC)
    except ImageError as error:
        return PhotoFacts(digest, len(data), problem=error.message)
    with open_photo(data, SPEC) as image:
        tables = getattr(image, "quantization", None)
        sampling = JpegImagePlugin.get_sampling(image) if tables else None
        said = {
            "format": str(image.format),
            "width": image.width,
            "height": image.height,
            "quantisation": hashlib.sha256(repr(sorted(tables.items())).encode()).hexdigest()[:8] if tables else "",
            "subsampling": _SUBSAMPLING.get(sampling, "other") if sampling is not None else "",
            "exif": "exif" in image.info,
        }
    return PhotoFacts(digest, len(data), **said, **_picture(pixels))  # type: ignore[arg-type]


def _picture(pixels: NDArray[np.uint8]) -> dict[str, float | str | bytes]:
    red, green, blue = (float(v) for v in pixels.mean(axis=(0, 1)))
    grey = Image.fromarray(pixels).convert("L")
    sharpness = float(np.log1p(laplace(np.asarray(grey, np.float32)).var()))
    # Zauner's pHash (2010) at 256 bits: the signs of low frequencies against their median. 64 bits do not tell aligned
    # portraits apart: of 1.6 million pairs of different faces 42 lie within 8 bits, as far as a copy cropped by 2 % does.
    low = dctn(np.asarray(grey.resize((32, 32), Image.Resampling.BOX), np.float32), norm="ortho")[:16, :16].ravel()
    bits = np.packbits(low > np.median(low[1:]))
    thumbnail = grey.resize((THUMB, THUMB), Image.Resampling.BOX).tobytes()
    means = {"red": red, "green": green, "blue": blue}
    return {**means, "sharpness": sharpness, "outline": bits.tobytes().hex(), "thumbnail": thumbnail}


def _load(store: Path) -> dict[str, PhotoFacts]:
    try:
        with np.load(store, allow_pickle=False) as kept:
            values, thumbnails = json.loads(kept["facts"].tobytes()), kept["thumbnails"]
        if values["version"] != VERSION:
            return {}
        rows = zip(values["facts"], thumbnails, strict=True)
        return {row["sha256"]: PhotoFacts(**row, thumbnail=b"" if row["problem"] else thumb.tobytes()) for row, thumb in rows}
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):  # not there, or another release's: it is read again
        return {}


def _save(store: Path, facts: dict[str, PhotoFacts]) -> None:
    store.parent.mkdir(parents=True, exist_ok=True)
    rows = [{name: value for name, value in vars(fact).items() if name != "thumbnail"} for fact in facts.values()]
    thumbnails = np.zeros((len(facts), THUMB * THUMB), np.uint8)
    for row, fact in enumerate(facts.values()):
        if fact.thumbnail:
            thumbnails[row] = np.frombuffer(fact.thumbnail, np.uint8)
    text = json.dumps({"version": VERSION, "facts": rows}).encode()
    with atomic_write(store) as partial, partial.open("wb") as file:
        np.savez(file, facts=np.frombuffer(text, np.uint8), thumbnails=thumbnails)
