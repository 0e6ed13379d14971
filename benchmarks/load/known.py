"""The right answers to a mix of requests, from the same model in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.load.mix import Mix, messages, photos_with_a_verdict
from benchmarks.photos import load_photos, refuse_broken
from detector.scorer import Scorer


@dataclass(frozen=True)
class Known:
    """calibrated: probability by photo name. threshold: of the model."""

    calibrated: dict[str, float]
    threshold: float = 0.5


def known_answers(model: Path, mix: Mix, photos: Path | None, photo_count: int) -> Known:
    """Score every photo of a mix once. photos, photo_count: as for `load_photos`.

    Raises `FileError` when the model can't be loaded or a file is no photo.
    """
    scorer = Scorer(model)
    given = load_photos(photos, photo_count)
    refuse_broken(given, scorer.manifest.image_spec)
    sent = photos_with_a_verdict(messages(mix, given))
    calibrated = {p.name: scorer.score(p.data).calibrated for p in tqdm(sent, desc="scoring locally", unit="photo")}
    return Known(calibrated, scorer.manifest.threshold)


def model_of(artifacts: Path, archive: str) -> Path:
    """The ONNX file of an archive; TorchScript's answers are those of float32."""
    return artifacts / (f"model.{archive}.onnx" if archive in ("int8", "fp16") else "model.onnx")
