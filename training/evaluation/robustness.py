"""Robustness: how far a detector falls as photos are re-encoded, blurred, scaled down, noisy or photographed off a screen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from tqdm import tqdm

from detector.decode import decode_image, whole_image
from detector.decode.bounds import MIN_SIDE
from detector.spec import ImageSpec
from training.data.photos import CLASSES, Photo, class_counts
from training.evaluation.metrics import Floats, decisions, roc_auc, with_intervals

PER_CLASS = 100
BATCH = 32
Change = Callable[[Image.Image, float, np.random.Generator], bytes]
Score = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


@dataclass(frozen=True)
class Corruption:
    """One way to make a photo worse. levels: from mild to severe. change: makes the file that the full-size photo becomes."""

    name: str
    unit: str
    levels: tuple[float, ...]
    change: Change


def _lossless(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG", compress_level=0)  # a stored file: it is read again at once
    return out.getvalue()


def _jpeg(image: Image.Image, quality: float) -> bytes:
    out = BytesIO()
    image.save(out, "JPEG", quality=int(quality))
    return out.getvalue()


def _scaled(image: Image.Image, factor: float) -> Image.Image:
    """Scaled down, but not below the side that a photo must have."""
    factor = max(factor, MIN_SIDE / min(image.size))
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _blurred(image: Image.Image, sigma: float) -> bytes:
    return _lossless(image.filter(ImageFilter.GaussianBlur(sigma)))


def _noisy(image: Image.Image, deviation: float, rng: np.random.Generator) -> bytes:
    pixels = np.asarray(image, np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(deviation)
    return _lossless(Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8)))


def _screenshot(image: Image.Image, severity: float, rng: np.random.Generator) -> bytes:
    """Shown at another size on a screen, cut out there and passed on by a messenger: smaller and coarser with each step."""
    return _jpeg(_scaled(image, 1 - 0.15 * severity), 95 - 12 * severity)


CORRUPTIONS = (
    Corruption("jpeg", "JPEG quality", (90, 70, 50, 30, 10), lambda image, level, rng: _jpeg(image, level)),
    Corruption(
        "blur",
        "blur, sigma in pixels",
        (0.5, 1, 2, 4),
        lambda image, level, rng: _blurred(image, level),
    ),
    Corruption("scale", "scaled down to", (0.75, 0.5, 0.35, 0.25), lambda image, level, rng: _lossless(_scaled(image, level))),
    Corruption("noise", "noise, standard deviation of 255", (2, 5, 10, 20), _noisy),
    Corruption("screenshot", "screenshot, severity", (1, 2, 3, 4), _screenshot),
)


def measure(
    score: Score,
    spec: ImageSpec,
    photos: Sequence[Photo],
    *,
    threshold: float,
    per_class: int = PER_CLASS,
    seed: int = 0,
) -> dict[str, Any]:
    """AUC and accuracy with 95 % intervals of a seeded choice of photos, untouched and at each level of each of `CORRUPTIONS`.

    photos: readable ones of both classes, of which at most `per_class` of each are taken. A change is made to the whole photo
    as it was decoded, before the spec's own resize, and stored as the file that would be sent; so a smaller photo really
    reaches the model as one. Returns JSON values: photos, and for each kind its unit and levels.
    """
    chosen = _chosen(photos, per_class, seed)
    labels = np.array([photo.label for photo in chosen], np.int64)
    passes = 1 + sum(len(kind.levels) for kind in CORRUPTIONS)
    with tqdm(total=len(chosen) * passes, desc="robustness", unit="photo", leave=False) as bar:

        def quality(change: Callable[[int, bytes], bytes]) -> dict[str, Any]:
            raw, calibrated = _scores(score, spec, chosen, change, bar)
            return _quality(labels, raw.astype(np.float64), calibrated >= threshold, seed)

        untouched = quality(lambda row, data: data)
        kinds = {
            kind.name: {
                "unit": kind.unit,
                "levels": [{"level": level, **quality(_changed(kind, level, seed, spec))} for level in kind.levels],
            }
            for kind in CORRUPTIONS
        }
    return {"photos": class_counts(labels), "untouched": untouched, "kinds": kinds}


def _chosen(photos: Sequence[Photo], per_class: int, seed: int) -> list[Photo]:
    rng = np.random.default_rng(seed)
    rows = []
    for label in CLASSES.values():
        own = np.array([i for i, photo in enumerate(photos) if photo.label == label], np.int64)
        rows.append(rng.permutation(own)[:per_class])
    return [photos[i] for i in np.sort(np.concatenate(rows))]


def _changed(kind: Corruption, level: float, seed: int, spec: ImageSpec) -> Callable[[int, bytes], bytes]:
    """What a photo's file becomes; its noise is its own, and the same whichever thread draws it."""
    return lambda row, data: kind.change(whole_image(data, spec), level, np.random.default_rng([seed, row]))


def _scores(
    score: Score, spec: ImageSpec, photos: Sequence[Photo], change: Callable[[int, bytes], bytes], bar: tqdm
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    def pixels(row: int) -> NDArray[np.uint8]:
        return decode_image(change(row, photos[row].path.read_bytes()), spec)

    scores = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(photos), BATCH):
            batch = list(pool.map(pixels, range(start, min(start + BATCH, len(photos)))))
            scores.append(score(np.stack(batch)))
            bar.update(len(batch))
    raw, calibrated = (np.concatenate(column) for column in zip(*scores, strict=True))
    return raw, calibrated


def _quality(labels: NDArray[np.int64], raw: Floats, flagged: NDArray[np.bool_], seed: int) -> dict[str, dict[str, float]]:
    return with_intervals(
        lambda weights: {
            "auc": roc_auc(labels, raw, weights),
            "accuracy": decisions(labels, flagged, weights)["accuracy"],
        },
        labels,
        seed=seed,
    )
