"""Mistakes: the photos a detector is most certainly wrong about, as thumbnails with the places that spoke for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from detector.decode.batches import decode_file
from detector.display.overlay import overlaid
from detector.errors import UnmaskError
from detector.packed import Readable
from detector.spec import ImageSpec
from detector.verdict import Band
from training.data.photos import FAKE
from training.evaluation.abstention import called

SHOWN = 12
SIDE = 192  # pixels of a thumbnail
Heatmaps = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
Pixels = Callable[[int], NDArray[np.uint8] | None]  # of a row: uint8[H, W, 3], as `decode_image` gives it


@dataclass(frozen=True)
class Mistake:
    """One photo with a wrong verdict. photo, heatmap: JPEG files, the second with the map over the first."""

    name: str
    label: int
    raw: float
    calibrated: float
    photo: bytes
    heatmap: bytes

    def to_dict(self) -> dict[str, Any]:
        """What a metrics file holds of it."""
        probabilities = {"raw_prob": self.raw, "calibrated": self.calibrated, "confidence": self.confidence}
        return {"name": self.name, "fake": self.label == FAKE, **probabilities}

    @property
    def confidence(self) -> float:
        """Probability of the wrong verdict, as in `Verdict`."""
        return 1 - self.calibrated if self.label == FAKE else self.calibrated


def worst(
    labels: NDArray[np.int64],
    raw: NDArray[np.floating],
    calibrated: NDArray[np.floating],
    threshold: float,
    band: Band | None = None,
    count: int = SHOWN,
) -> NDArray[np.int64]:
    """Rows of at most `count` wrong verdicts, which Uncertain is not; the most confident first, by calibrated probability and
    then by raw."""
    called_fake, called_real = called(calibrated, threshold, band)
    wrong = np.flatnonzero(np.where(labels == FAKE, called_real, called_fake))
    off, off_raw = (np.abs(p[wrong].astype(np.float64) - labels[wrong]) for p in (calibrated, raw))
    return wrong[np.lexsort((-off_raw, -off))][:count]


def find_mistakes(
    names: Sequence[str],
    labels: NDArray[np.int64],
    raw: NDArray[np.floating],
    calibrated: NDArray[np.floating],
    threshold: float,
    band: Band | None,
    pixels: Pixels,
    heatmaps: Heatmaps,
) -> list[Mistake]:
    """The worst mistakes with pictures; without those whose pixels can't be had any more."""
    found = [(row, pixels(int(row))) for row in worst(labels, raw, calibrated, threshold, band)]
    there = [(row, photo) for row, photo in found if photo is not None]
    if not there:
        return []
    maps = heatmaps(np.stack([photo for _, photo in there]))
    return [
        Mistake(
            names[row], int(labels[row]), float(raw[row]), float(calibrated[row]), _jpeg(photo), _jpeg(overlaid(photo, heat))
        )
        for (row, photo), heat in zip(there, maps, strict=True)
    ]


def pixels_of(files: Sequence[Readable], spec: ImageSpec) -> Pixels:
    """The pixels of these files, decoded anew as `spec` says; None for one that can't be read any more."""

    def pixels(row: int) -> NDArray[np.uint8] | None:
        decoded = decode_file(files[row], spec)
        return None if isinstance(decoded, UnmaskError) else decoded.pixels

    return pixels


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=85)
    return out.getvalue()
