"""Robustness: how a detector does, and how many verdicts change, on photos as editors, messengers and screens leave them."""

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
from detector.errors import ImageError
from detector.spec import ImageSpec
from detector.verdict import Band
from training.data.photos import CLASSES, Photo, class_counts
from training.evaluation.abstention import called
from training.evaluation.metrics import Floats, decisions, roc_auc, wilson, with_intervals

PER_CLASS = 100
BATCH = 16
MOST_PIXELS = 4_000_000  # of a photo that is changed; a larger one is scaled down to so many before
MANY = 0.1  # of the verdicts changed: a sentence says so
Change = Callable[[Image.Image, float, np.random.Generator], bytes]
Scores = tuple[NDArray[np.float32], NDArray[np.float32]]  # raw and calibrated probabilities
Score = Callable[[NDArray[np.uint8]], Scores]


@dataclass(frozen=True)
class Corruption:
    """One way to change a photo.

    unit: of the levels, for axes. levels: from mild to severe. said: the beginning of a sentence, up to its verb, about a
    level. change: makes the file that the full-size photo becomes.
    """

    name: str
    unit: str
    levels: tuple[float, ...]
    said: str
    change: Change


def _lossless(image: Image.Image) -> bytes:
    out = BytesIO()
    image.save(out, "PNG", compress_level=0)  # a stored file: it is read again at once
    return out.getvalue()


def _compressed(image: Image.Image, format: str, quality: float) -> bytes:
    out = BytesIO()
    image.save(out, format, quality=int(quality))
    return out.getvalue()


def _scaled(image: Image.Image, factor: float, filter: Image.Resampling = Image.Resampling.BICUBIC) -> Image.Image:
    """Both sides times `factor`, but none below `MIN_SIDE`, of which a photo is refused."""
    factor = max(factor, min(MIN_SIDE / min(image.size), 1))
    width, height = (round(side * factor) for side in image.size)
    return image.resize((width, height), filter)


def _grey(image: Image.Image, bits: float, rng: np.random.Generator) -> bytes:
    """A grey file of 8 bits, as a camera's black-and-white mode leaves it, or of 16, as scanners do."""
    grey = image.convert("L")
    return _lossless(grey if bits == 8 else Image.fromarray(np.asarray(grey).astype(np.uint16) * 257))


def _noisy(image: Image.Image, deviation: float, rng: np.random.Generator) -> bytes:
    pixels = np.asarray(image, np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(deviation)
    return _lossless(Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8)))


def _screenshot(image: Image.Image, size: float, rng: np.random.Generator) -> bytes:
    """Shown smaller on a page, white or nearly black, and cut out there with a margin of 2 to 6 % of its shorter side."""
    shown = _scaled(image, size, Image.Resampling.BILINEAR)
    margins = [round(min(shown.size) * share) for share in rng.uniform(0.02, 0.06, 4)]
    page = (255, 255, 255) if rng.random() < 0.5 else (24, 24, 28)
    left, top, right, bottom = margins
    framed = Image.new("RGB", (shown.width + left + right, shown.height + top + bottom), page)
    framed.paste(shown, (left, top))
    return _lossless(framed)


def _messenger(image: Image.Image, severity: float, rng: np.random.Generator) -> bytes:
    """Passed on by a messenger: smaller and coarser with each step."""
    return _compressed(_scaled(image, 1 - 0.15 * severity), "JPEG", 95 - 12 * severity)


def _small_face(image: Image.Image, size: float, rng: np.random.Generator) -> bytes:
    """The photo in the middle of a larger one of the same size, which is itself out of focus."""
    small = _scaled(image, size)
    around = image.filter(ImageFilter.GaussianBlur(max(image.size) / 16))
    around.paste(small, ((image.width - small.width) // 2, (image.height - small.height) // 2))
    return _lossless(around)


CORRUPTIONS = (
    Corruption(
        "jpeg",
        "JPEG quality",
        (90, 70, 40, 20, 10),
        "JPEG at quality {:g} changes",
        lambda image, level, rng: _compressed(image, "JPEG", level),
    ),
    Corruption(
        "webp",
        "WebP quality",
        (90, 60, 30, 10),
        "WebP at quality {:g} changes",
        lambda image, level, rng: _compressed(image, "WEBP", level),
    ),
    Corruption("grey", "grey, bits", (8, 16), "Grey photos of {:g} bits change", _grey),
    Corruption("screenshot", "screenshot, shown at", (0.9, 0.7, 0.5), "Screenshots at {:g} of the size change", _screenshot),
    Corruption("small_face", "face shrunk to", (0.8, 0.6, 0.4), "Faces at {:g} of the size change", _small_face),
    Corruption(
        "scale",
        "scaled down to",
        (0.75, 0.5, 0.25),
        "Photos scaled down to {:g} change",
        lambda image, level, rng: _lossless(_scaled(image, level)),
    ),
    Corruption(
        "blur",
        "blur, sigma in pixels",
        (0.5, 1, 2, 4),
        "Blur with a sigma of {:g} pixels changes",
        lambda image, level, rng: _lossless(image.filter(ImageFilter.GaussianBlur(level))),
    ),
    Corruption(
        "noise", "noise, standard deviation of 255", (5, 10, 20), "Noise with a standard deviation of {:g} changes", _noisy
    ),
    Corruption(
        "messenger", "messenger, severity", (1, 2, 3, 4), "A messenger that compresses with severity {:g} changes", _messenger
    ),
)


def measure(
    score: Score,
    spec: ImageSpec,
    photos: Sequence[Photo],
    *,
    threshold: float,
    band: Band | None = None,
    per_class: int = PER_CLASS,
    seed: int = 0,
) -> dict[str, Any]:
    """What becomes of a seeded choice of photos, untouched and at each level of each of `CORRUPTIONS`.

    photos: readable ones of both classes, of which at most `per_class` of each are taken, however many there are. A change is
    made to the whole photo as it was decoded, before the spec's own resize, and stored as the file that would be sent; so a
    smaller photo really reaches the model as one. One of more than `MOST_PIXELS` is scaled down before.

    Returns JSON values: photos, how many of each class; left_out, how many that can't be decoded once they are changed;
    untouched, with AUC and accuracy at the threshold; kinds, for each its unit and levels, with AUC and accuracy and with
    changed, the share of the photos that are called something else than before, Uncertain included; all with 95 % intervals;
    and sentences on the kinds that change more than `MANY`.
    """
    chosen = _chosen(photos, per_class, seed)
    scores, kept = _scores(score, spec, chosen, seed)
    labels = np.array([photo.label for photo in chosen], np.int64)[kept]
    words = [np.stack(called(calibrated, threshold, band)) for _, calibrated in scores]

    def quality(row: int) -> dict[str, Any]:
        raw, calibrated = scores[row]
        return _quality(labels, raw.astype(np.float64), calibrated >= threshold, seed)

    kinds: dict[str, Any] = {}
    for row, (kind, level) in enumerate(_rows(), 1):
        changed = int((words[row] != words[0]).any(axis=0).sum())
        levels = kinds.setdefault(kind.name, {"unit": kind.unit, "levels": []})["levels"]
        levels.append({"level": level, **quality(row), "changed": wilson(changed, len(labels))})
    counts = {"photos": class_counts(labels), "left_out": len(chosen) - len(labels)}
    return {**counts, "untouched": quality(0), "kinds": kinds, "sentences": _sentences(kinds)}


def _rows() -> list[tuple[Corruption, float]]:
    """Every level of every kind."""
    return [(kind, level) for kind in CORRUPTIONS for level in kind.levels]


def _sentences(kinds: dict[str, Any]) -> list[str]:
    """For each kind with a level that changes more than `MANY` of the verdicts: the mildest such level, and the worst one."""
    said = []
    for kind in CORRUPTIONS:
        levels = kinds[kind.name]["levels"]
        over = [row for row in levels if row["changed"]["value"] > MANY]
        if not over:
            continue
        mildest, worst = over[0], max(over, key=lambda row: row["changed"]["value"])
        sentence = f"{kind.said.format(mildest['level'])} {100 * mildest['changed']['value']:.0f} % of the verdicts"
        if worst is not mildest:
            sentence += f", and at {worst['level']:g} {100 * worst['changed']['value']:.0f} %"
        said.append(f"{sentence}.")
    return said


def _chosen(photos: Sequence[Photo], per_class: int, seed: int) -> list[Photo]:
    rng = np.random.default_rng(seed)
    rows = []
    for label in CLASSES.values():
        own = np.array([i for i, photo in enumerate(photos) if photo.label == label], np.int64)
        rows.append(rng.permutation(own)[:per_class])
    return [photos[i] for i in np.sort(np.concatenate(rows))]


def _whole(data: bytes, spec: ImageSpec) -> Image.Image:
    """A file's picture at full size, or at that of `MOST_PIXELS`."""
    whole = whole_image(data, spec)
    pixels = whole.width * whole.height
    return whole if pixels <= MOST_PIXELS else _scaled(whole, (MOST_PIXELS / pixels) ** 0.5)


def _scores(score: Score, spec: ImageSpec, photos: Sequence[Photo], seed: int) -> tuple[list[Scores], NDArray[np.bool_]]:
    """Scores of the photos as they are and at each of `_rows`, without those that can't be decoded in all these forms; and
    which are kept. Each is read and decoded once."""

    def versions(row: int) -> list[NDArray[np.uint8]] | None:
        data = photos[row].path.read_bytes()
        try:
            whole = _whole(data, spec)
            # A photo's noise is its own, and the same whichever thread draws it.
            files = (kind.change(whole, level, np.random.default_rng([seed, row])) for kind, level in _rows())
            return [decode_image(data, spec), *(decode_image(file, spec) for file in files)]
        except ImageError:
            return None

    found: list[list[Scores]] = [[] for _ in range(1 + len(_rows()))]
    kept = np.zeros(len(photos), bool)
    with ThreadPoolExecutor() as pool, tqdm(total=len(photos), desc="robustness", unit="photo", leave=False) as bar:
        for start in range(0, len(photos), BATCH):
            rows = range(start, min(start + BATCH, len(photos)))
            read = list(pool.map(versions, rows))
            kept[rows.start : rows.stop] = [each is not None for each in read]
            if good := [each for each in read if each is not None]:
                for scored, images in zip(found, zip(*good, strict=True), strict=True):
                    scored.append(score(np.stack(images)))
            bar.update(len(rows))
    return [(np.concatenate([raw for raw, _ in each]), np.concatenate([p for _, p in each])) for each in found], kept


def _quality(labels: NDArray[np.int64], raw: Floats, flagged: NDArray[np.bool_], seed: int) -> dict[str, dict[str, float]]:
    return with_intervals(
        lambda weights: {
            "auc": roc_auc(labels, raw, weights),
            "accuracy": decisions(labels, flagged, weights)["accuracy"],
        },
        labels,
        seed=seed,
    )
