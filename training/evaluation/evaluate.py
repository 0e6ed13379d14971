"""Evaluation: any labelled folder, any checkpoint or exported model, with the metrics of a training run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from detector.decode.batches import decoded_batches
from detector.errors import FileError, UnmaskError, UsageError
from detector.files import shown
from detector.model_warnings import model_warnings
from detector.scorer import Scorer
from detector.spec import ImageSpec
from detector.verdict import DEFAULT_THRESHOLD, Band
from training.data.loader import normalise
from training.data.photos import REAL, Photo, checked_pattern, class_counts, find_photos, fingerprint, unreadable_warning
from training.evaluation import pointing_game as pointing
from training.evaluation import robustness
from training.evaluation.abstention import abstention, called
from training.evaluation.families import family_names, family_rows, group_rows
from training.evaluation.metrics import evaluate, score_histogram
from training.evaluation.mistakes import Heatmaps, Mistake, find_mistakes, pixels_of
from training.models.checkpoint import BEST, load_calibration, load_checkpoint

BATCH = 32
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class ScoringModel:
    """A model to evaluate. score: uint8[N, H, W, 3] to raw and calibrated probability, float32[N] each. heatmaps: to maps."""

    name: str
    spec: ImageSpec
    threshold: float
    band: Band | None
    score: Callable[[NDArray[np.uint8]], tuple[Floats, Floats]]
    heatmaps: Heatmaps


@dataclass(frozen=True)
class Evaluation:
    """What a model does on labelled photos. result: JSON values. labels, raw, calibrated: of the readable photos, [n] each."""

    result: dict[str, Any]
    labels: NDArray[np.int64]
    raw: Floats
    calibrated: Floats
    mistakes: list[Mistake]


def from_checkpoint(path: Path) -> ScoringModel:
    """A checkpoint with curve, threshold and band of its run; without them, raw probabilities and the default threshold."""
    checkpoint = load_checkpoint(path)
    network, spec = checkpoint.build(), checkpoint.image_spec
    _, curve = load_calibration(path)

    def prepared(images: NDArray[np.uint8]) -> torch.Tensor:
        return normalise(torch.from_numpy(images).permute(0, 3, 1, 2), spec)

    def score(images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            raw = network(prepared(images)).sigmoid().numpy()
        return raw, curve(raw)

    def heatmaps(images: NDArray[np.uint8]) -> Floats:
        with torch.inference_mode():
            return network.logit_and_map(prepared(images))[1].numpy()

    return ScoringModel(checkpoint.model_config.name, spec, *_decided_beside(path), score, heatmaps)


def from_onnx(path: Path) -> ScoringModel:
    """An exported model with the manifest beside it, whose hash is checked first."""
    scorer = Scorer(path)
    manifest = scorer.manifest
    return ScoringModel(
        manifest.model.backbone,
        manifest.image_spec,
        manifest.threshold,
        manifest.uncertain,
        lambda images: scorer.scores(images)[1:],
        scorer.heatmaps,
    )


def evaluate_folder(
    model: ScoringModel,
    data: Path,
    *,
    part: str = "validation",
    label_names: str | None = None,
    threshold: float | None = None,
    family_by: str | None = None,
    group_by: str | None = None,
    robustness_photos: int = 0,
    pointing_photos: int = 0,
    seed: int = 0,
) -> Evaluation:
    """Metrics with 95 % intervals of `model` on the labelled photos in `data`.

    part: of a folder that is divided into Train and Validation; one that is not is taken whole. label_names: what the labels
    of Parquet and tar files mean. threshold: None takes the model's own, and its band; with another there is no band.
    family_by, group_by: regular expressions on a photo's name, see `families`. robustness_photos: how many of each class are
    corrupted and scored again. pointing_photos: on pseudo-fakes of how many real photos heatmaps are tested.
    Raises `DataProblem` when the folder is not laid out as expected, `UsageError` when a class has no readable photo.
    """
    family_by, group_by = checked_pattern(family_by, "--family-by"), checked_pattern(group_by, "--group-by")
    photos = [p for p in find_photos(data, labels=label_names) if part == "all" or p.part in (part, None)]
    rows, raw, calibrated, unreadable = scores_of(model, photos)
    if unreadable:
        print(unreadable_warning(unreadable, len(photos)), file=sys.stderr)
    readable = [photos[row] for row in rows]
    labels, names = np.array([photo.label for photo in readable], np.int64), [photo.name for photo in readable]
    counts = class_counts(labels)
    if min(counts.values()) < 1:
        raise UsageError(f"--data {data}: {counts['real']} readable real photos and {counts['fake']} fake; both are needed")
    threshold, band = (threshold, None) if threshold else (model.threshold, model.band)
    flagged, _ = called(calibrated, threshold, band)
    measured = evaluate(labels, raw, calibrated, threshold=threshold, seed=seed)
    families = family_names(names, family_by)
    groups = family_names(names, group_by) if group_by else None
    files = [photo.path for photo in readable]
    pixels = pixels_of(files, model.spec)
    mistakes = find_mistakes(names, labels, raw, calibrated, threshold, band, pixels, model.heatmaps)
    result = {
        "model": model.name,
        "data": shown(data.name),
        "part": part if any(p.part for p in photos) else "all",
        "counts": counts,
        "validation": measured,
        "warnings": model_warnings(measured, threshold, band),
        "uncertain": band.to_list() if band else None,
        "abstention": abstention(labels, calibrated, band) if band else None,
        "families": family_rows(families, labels, raw, flagged, seed=seed) if families else None,
        "groups": group_rows(groups, labels, flagged) if groups else None,
        "robustness": None,
        "pointing_game": None,
        "mistakes": [mistake.to_dict() for mistake in mistakes],
        "reference_scores": score_histogram(calibrated),
        "unreadable": unreadable,
        "fingerprint": fingerprint(photos),
    }
    if robustness_photos:
        result["robustness"] = robustness.measure(
            model.score, model.spec, readable, threshold=threshold, band=band, per_class=robustness_photos, seed=seed
        )
    if pointing_photos:
        real = [photo.path for photo in readable if photo.label == REAL][:pointing_photos]
        result["pointing_game"] = pointing.play(model.heatmaps, model.spec, real, seed=seed)
    return Evaluation(result, labels, raw, calibrated, mistakes)


def scores_of(model: ScoringModel, photos: Sequence[Photo]) -> tuple[list[int], Floats, Floats, dict[str, str]]:
    """Rows of the readable photos, their raw and calibrated probabilities, and why the others are not among them."""
    rows: list[int] = []
    unreadable: dict[str, str] = {}
    raw, calibrated = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    with tqdm(total=len(photos), desc="scoring", unit="photo", leave=False) as bar:
        batches = decoded_batches([photo.path for photo in photos], model.spec, BATCH)
        for start, batch in zip(range(0, len(photos), BATCH), batches, strict=True):
            entries = list(enumerate(batch, start))
            good = [(row, content.pixels) for row, content in entries if not isinstance(content, UnmaskError)]
            unreadable |= {photos[row].name: content.message for row, content in entries if isinstance(content, UnmaskError)}
            if good:
                rows += [row for row, _ in good]
                p, q = model.score(np.stack([pixels for _, pixels in good]))
                raw.append(p)
                calibrated.append(q)
            bar.update(len(batch))
    return rows, np.concatenate(raw), np.concatenate(calibrated), unreadable


def _decided_beside(checkpoint: Path) -> tuple[float, Band | None]:
    """The threshold and the band of the run that a best checkpoint lies in, where it says them."""
    if checkpoint.name != BEST:
        return DEFAULT_THRESHOLD, None
    try:
        values = json.loads(checkpoint.with_name("metrics.json").read_text(encoding="utf-8"))
        found, band = float(values["threshold"]), Band.from_list(values.get("uncertain"))
    except (OSError, ValueError, KeyError, TypeError, FileError):
        return DEFAULT_THRESHOLD, None
    return (found, band) if 0 < found < 1 else (DEFAULT_THRESHOLD, None)
