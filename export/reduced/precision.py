"""Fewer bits, judged: a float32 model's layers as int8 or float16 where photos say that they may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from detector.cpus import has_vnni
from detector.decode import decode_image
from detector.errors import ImageError, UsageError
from detector.spec import ImageSpec
from export.errors import PrecisionError
from export.pictures import spread_evenly
from export.reduced.half import in_half, weights_in_half
from export.reduced.int8 import Int8
from export.reduced.search import Search, finite, logits, speed_up, spread
from export.runners import Pixels
from training.data.photos import CLASSES, Photo, find_photos

# How far the logit may move, as a root mean square in standard deviations of the logit between photos: a tenth costs an AUC
# of 0.9 about a thousandth, since it widens both classes' scores by a half percent.
ERROR_LIMIT = {"int8": 0.1, "fp16": 0.02}
AUC_LIMIT = 0.005
RANGES, LAYERS, JUDGED = 64, 64, 400  # photos of each part, both classes in turn
FEWEST_JUDGED = 20  # of each class


@dataclass(frozen=True)
class Photos:
    """Decoded photos, uint8[N, H, W, 3] each: to measure ranges on, to choose layers on, and to judge the result on.

    labels: int64[N] of `judged`, 0 real, 1 fake. held_out: whether those are the folder's validation photos.
    """

    ranges: Pixels
    layers: Pixels
    judged: Pixels
    labels: NDArray[np.int64]
    held_out: bool


def read_photos(data: Path, spec: ImageSpec, *, label_names: str | None = None) -> Photos:
    """Photos of a labelled folder, as `unmask train` takes it; no photo is in two parts.

    label_names: what those of Parquet and tar files mean; the run's own are right for its own photos.
    Ranges and layers are decided on training photos, and judged on validation photos where the folder divides itself.
    Raises `UsageError` when there are too few that can be decoded.
    """
    found = find_photos(data, labels=label_names)
    training = _decoded([photo for photo in found if photo.part != "validation"], spec)
    validation = [photo for photo in found if photo.part == "validation"]
    parts = [
        list(islice(source, count))
        for source, count in (
            (training, RANGES),
            (training, LAYERS),
            (_decoded(validation, spec) if validation else training, JUDGED),
        )
    ]
    labels = np.array([label for _, label in parts[2]], np.int64)
    judged = min(int((labels == label).sum()) for label in CLASSES.values())
    if len(parts[1]) < LAYERS or judged < FEWEST_JUDGED:
        have = f"{len(parts[0]) + len(parts[1])} and {judged}"
        raise UsageError(
            f"{data}: fewer bits are chosen on {RANGES + LAYERS} training photos and judged on {FEWEST_JUDGED} others or more "
            f"of each class; {have} can be decoded there"
        )
    ranges, layers, pixels = (np.stack([pixels for pixels, _ in part]) for part in parts)
    return Photos(ranges, layers, pixels, labels, bool(validation))


def reduce_precision(precision: str, scores: onnx.ModelProto, photos: Photos) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """`scores` with as many layers in "int8" or "fp16" as its logits bear, and what was measured.

    Input, normalisation, head, heatmap and sigmoid are computed in float32, the head's large weights stored as float16.
    Raises `PrecisionError` when no layer may be reduced, or the AUC of the judged photos moves by more than `AUC_LIMIT`.
    """
    whole = Int8(scores, photos.ranges) if precision == "int8" else partial(in_half, scores)
    search = Search(scores, whole, photos.layers, ERROR_LIMIT[precision])
    choice = search.run(timed=precision == "int8")
    if not choice.reduced:
        raise PrecisionError(
            f"{precision}: every layer alone moves the logit too far (all together by {choice.error_of_all:.2g} of its "
            f"deviation; at most {ERROR_LIMIT[precision]:g}); serve float32"
        )
    model = weights_in_half(search.build(choice.reduced))
    before, after = logits(scores, photos.judged), logits(model, photos.judged)
    deviation = float(before.std())
    report: dict[str, Any] = {
        "layers": {"reduced": len(choice.reduced), "float32": {"accuracy": list(choice.kept_for_accuracy)}},
        "logit_error": {
            "limit": ERROR_LIMIT[precision],
            "all_layers": finite(choice.error_of_all),
            "chosen_layers": choice.error,
            "judged": finite(spread(after, before, deviation)),
            "bias": finite(float((after - before).mean()) / max(deviation, 1e-12)),
        },
        "photos": {
            "ranges": len(photos.ranges),
            "layers": len(photos.layers),
            "judged": len(photos.judged),
            "held_out": photos.held_out,
        },
    }
    if not np.isfinite(after).all():
        raise PrecisionError(f"{precision}: gives photos a logit that is no finite number; serve float32")
    report["auc"] = {
        "float32": float(roc_auc_score(photos.labels, before)),
        precision: float(roc_auc_score(photos.labels, after)),
    }
    if abs(moved := report["auc"][precision] - report["auc"]["float32"]) > AUC_LIMIT:
        raise PrecisionError(
            f"{precision}: moves the AUC of {len(photos.judged)} photos by {moved:+.4f} (at most {AUC_LIMIT:g}); serve float32"
        )
    if precision == "int8":
        report["layers"]["float32"]["speed"] = list(choice.kept_for_speed)
        times = {f"batch_{n}": round(speed_up(scores, model, photos.judged[:n]), 2) for n in (1, 8)}
        report["times_as_fast"] = {**times, "vnni": has_vnni()}
    return model, report


def _decoded(photos: Iterable[Photo], spec: ImageSpec) -> Iterator[tuple[Pixels, int]]:
    """Pixels and label of what can be decoded, the classes in turn, each spread evenly over its names."""
    rows = list(photos)
    classes = [spread_evenly([p for p in rows if p.label == label]) for label in CLASSES.values()]
    for photo in chain.from_iterable(zip_longest(*classes)):
        if photo is not None:
            try:
                yield decode_image(photo.path.read_bytes(), spec), photo.label
            except (ImageError, OSError):
                continue
