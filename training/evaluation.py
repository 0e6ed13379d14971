"""Evaluation: any labelled folder, any checkpoint or exported model, judged by the same metrics as a training run."""

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

from detector.batches import decoded_batches
from detector.errors import UnmaskError, UsageError
from detector.scorer import Scorer
from detector.spec import ImageSpec
from training.checkpoint import load_calibration, load_checkpoint
from training.data import CLASSES, Photo, find_photos, fingerprint, unreadable_warning
from training.loader import normalise
from training.metrics import evaluate, score_histogram
from training.report import write_report

BATCH = 32
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """A model to evaluate. score: uint8[N, H, W, 3] to raw and calibrated probability, float32[N] each."""

    name: str
    spec: ImageSpec
    threshold: float
    score: Callable[[NDArray[np.uint8]], tuple[Floats, Floats]]


def from_checkpoint(path: Path) -> Judged:
    """A checkpoint with the curve that was fitted to it; where there is none its raw probabilities are judged as they are."""
    checkpoint = load_checkpoint(path)
    network, spec = checkpoint.build(), checkpoint.image_spec
    _, curve = load_calibration(path)

    def score(images: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2)
            raw = network(normalise(x, spec)).sigmoid().numpy()
        return raw, curve(raw)

    return Judged(checkpoint.model_config.name, spec, 0.5, score)


def from_onnx(path: Path) -> Judged:
    """An exported model with the manifest beside it, whose hash is checked first."""
    scorer = Scorer(path)
    manifest = scorer.manifest
    return Judged(manifest.model.backbone, manifest.image_spec, manifest.threshold, lambda images: scorer.scores(images)[1:])


def evaluate_folder(
    judged: Judged,
    data: Path,
    *,
    part: str = "validation",
    threshold: float | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Metrics with 95 % intervals of `judged` on the labelled photos in `data`, as JSON values.

    part: of a folder that is divided into Train and Validation; one that is not is taken whole. threshold: None takes the
    model's own. out: folder for the report page and its plots, and `evaluation.json`.
    Raises `DataProblem` when the folder is not laid out as expected, `UsageError` when a class has no readable photo.
    """
    photos = [p for p in find_photos(data) if part == "all" or p.part in (part, None)]
    rows, raw, calibrated, unreadable = _scores(judged, photos)
    if unreadable:
        print(unreadable_warning(unreadable, len(photos)), file=sys.stderr)
    labels = np.array([photos[row].label for row in rows], np.int64)
    counts = {name: int((labels == label).sum()) for name, label in CLASSES.items()}
    if min(counts.values()) < 1:
        raise UsageError(f"--data {data}: {counts['real']} readable real photos and {counts['fake']} fake; both are needed")
    result = {
        "model": judged.name,
        "data": data.name,
        "part": part if any(p.part for p in photos) else "all",
        "counts": counts,
        "validation": evaluate(labels, raw, calibrated, threshold=threshold or judged.threshold, seed=seed),
        "reference_scores": score_histogram(calibrated),
        "unreadable": unreadable,
        "fingerprint": fingerprint(photos),
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "evaluation.json").write_text(json.dumps(result, indent=1, ensure_ascii=False), encoding="utf-8")
        write_report(out / "report", result, labels, raw, calibrated)
    return result


def _scores(judged: Judged, photos: Sequence[Photo]) -> tuple[list[int], Floats, Floats, dict[str, str]]:
    """Rows of the readable photos, their raw and calibrated probabilities, and why the others are not among them."""
    rows: list[int] = []
    unreadable: dict[str, str] = {}
    raw, calibrated = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    with tqdm(total=len(photos), desc="scoring", unit="photo", leave=False) as bar:
        batches = decoded_batches([photo.path for photo in photos], judged.spec, BATCH)
        for start, batch in zip(range(0, len(photos), BATCH), batches, strict=True):
            entries = list(enumerate(batch, start))
            good = [(row, content) for row, content in entries if not isinstance(content, UnmaskError)]
            unreadable |= {photos[row].name: content.message for row, content in entries if isinstance(content, UnmaskError)}
            if good:
                rows += [row for row, _ in good]
                p, q = judged.score(np.stack([pixels for _, pixels in good]))
                raw.append(p)
                calibrated.append(q)
            bar.update(len(batch))
    return rows, np.concatenate(raw), np.concatenate(calibrated), unreadable
