"""What export reads from a training run: the checkpoint, the calibration curve and the reported metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detector.calibration import CalibrationCurve
from detector.files import read_json
from detector.verdict import Band
from export.checks import check_run
from training.models.checkpoint import BEST, Checkpoint, load_calibration, load_checkpoint
from training.options import without_places


@dataclass(frozen=True)
class Run:
    """A training run.

    method: how the curve was fitted, "none" when there is none and `curve` is the identity. metrics: on validation photos,
    with intervals. threshold_choice: how the threshold was chosen, where it was for a rate of false alarms.
    uncertain, band_choice: the band, and how it was chosen, where the run has one. photos: where the
    run's validation photos are, or all of its photos, when that folder still exists.
    """

    checkpoint: Checkpoint
    curve: CalibrationCurve = field(default_factory=CalibrationCurve.identity)
    method: str = "none"
    metrics: dict[str, Any] = field(default_factory=dict)
    reference_scores: dict[str, Any] = field(default_factory=dict)
    threshold: float | None = None
    threshold_choice: dict[str, Any] | None = None
    uncertain: Band | None = None
    band_choice: dict[str, Any] | None = None

    @property
    def data(self) -> Path | None:
        """The labelled photos that it was trained on, when that folder or file still exists."""
        data = Path(str(self.checkpoint.arguments.get("data") or "."))
        return data if data != Path() and data.exists() else None

    @property
    def photos(self) -> Path | None:
        """The folder that parity is measured on when no other is given, or the file."""
        if (data := self.data) is None or not data.is_dir():
            return data
        return next((d for d in sorted(data.iterdir()) if d.is_dir() and d.name.lower() == "validation"), data)

    @property
    def arguments(self) -> dict[str, Any]:
        """The training command's options, without where its files were: the manifest travels to other machines."""
        return without_places(self.checkpoint.arguments)


def read_run(folder: Path, which: str = "best") -> Run:
    """Read `best_model.pth` with `calibration.json` and `metrics.json`, where they are; or `final_model.pth` alone, since the
    curve was fitted to the best checkpoint and the metrics are that one's.

    Raises `FileError` naming the file that is missing or unreadable.
    """
    check_run(folder, which)
    checkpoint = load_checkpoint(folder / f"{which}_model.pth")
    if which != "best":
        return Run(checkpoint)
    method, curve = load_calibration(folder / BEST)
    path = folder / "metrics.json"
    metrics = read_json(path) if path.exists() else {}
    return Run(
        checkpoint,
        curve,
        method,
        metrics.get("validation", {}),
        metrics.get("reference_scores", {}),
        metrics.get("threshold"),
        metrics.get("threshold_choice"),
        Band.from_list(metrics.get("uncertain")),
        metrics.get("band_choice"),
    )
