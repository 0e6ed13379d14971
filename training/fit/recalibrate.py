"""Recalibrate: a finished run's curve and threshold fitted anew on labelled photos; its weights stay as they are."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from detector.errors import FileError, UsageError
from training.calibration.methods import TooFewToCalibrate, few_warning, fit_calibration, require_enough
from training.data.photos import class_counts, find_photos, fingerprint, unreadable_warning
from training.evaluation.evaluate import from_checkpoint, scores_of
from training.evaluation.mistakes import of_files
from training.evaluation.run_metrics import run_metrics
from training.evaluation.scores import ScoreTable, content_hashes
from training.models.checkpoint import BEST
from training.report.card import write_card
from training.report.report import write_report

# A photo that the weights were fitted or chosen by is scored too surely, and one that is reported on must decide nothing.
LEFT_OUT = {"fit": "fitted on", "tune": "tuned on", "validation": "reported on"}


def recalibrate(
    run: Path,
    data: Path,
    *,
    method: str = "isotonic",
    target_fpr: float | None = None,
    part: str = "all",
    seed: int = 0,
) -> dict[str, Any]:
    """Fit a run's calibration anew on `data` and write it into the run; returns what `metrics.json` then holds.

    Photos whose content the run was fitted, tuned or is reported on are left out, so that `data` may be the run's own folder:
    what is left there are the photos it was calibrated on. `calibration.json`, `calibrator.joblib`, `metrics.json`,
    `scores.csv`, the report and the model card are written; what is reported of the validation photos is computed from their
    raw scores.
    Raises `FileError` when `run` is none or `scores.csv` is missing, `TooFewToCalibrate`, and what `find_photos` raises.
    """
    table, metrics = ScoreTable.load(run), _read(run / "metrics.json")
    photos = [p for p in find_photos(data) if part == "all" or p.part in (part, None)]
    seen = dict(zip(table.hashes, table.parts, strict=True))
    hashes = content_hashes([photo.path for photo in photos])
    arguments = metrics["arguments"]
    crossed = arguments.get("folds") and arguments.get("members")  # who were fitted on them
    reasons = {**LEFT_OUT, "calibrate": LEFT_OUT["fit"]} if crossed else LEFT_OUT
    left_out = Counter(reasons[seen[content]] for content in hashes if seen.get(content) in reasons)
    kept = [photo for photo, content in zip(photos, hashes, strict=True) if seen.get(content) not in reasons]
    without = "; ".join(f"{n} left out that the run was {what}" for what, n in left_out.items())
    try:
        require_enough(method, len(kept))
    except TooFewToCalibrate as error:
        raise TooFewToCalibrate(f"{error.message} ({without})" if without else error.message) from None
    judged = from_checkpoint(run / BEST)
    rows, raw, _, unreadable = scores_of(judged, kept)
    if unreadable:
        print(unreadable_warning(unreadable, len(kept)), file=sys.stderr)
    labels = np.array([kept[row].label for row in rows], np.int64)
    counts = class_counts(labels)
    if min(counts.values()) < 1:
        raise UsageError(
            f"--data {data}: {counts['real']} real photos and {counts['fake']} fake are left to calibrate on {without}"
        )
    names = tuple(kept[row].name for row in rows)
    held_out = ScoreTable(names, labels, ("calibrate",) * len(rows), ("",) * len(rows), raw)
    if warning := few_warning(method, len(rows)):
        print(warning, file=sys.stderr)
    calibration = fit_calibration(method, raw, labels)
    validation = table.of("validation")
    metrics |= run_metrics(validation, calibration, held_out, target_fpr=target_fpr, seed=seed)
    note = f"recalibrated on {len(rows)} photos of {data.name} ({counts['real']} real, {counts['fake']} fake)"
    metrics["calibration"] |= {
        "recalibrated": True,
        "data": data.name,
        "fingerprint": fingerprint([kept[row] for row in rows]),
        "counts": counts,
        "left_out": dict(left_out),
        "note": f"{note}; {without}" if without else note,
    }
    labels, raw, calibrated = validation.labels, validation.raw, calibration.curve(validation.raw)
    # Of the run's own photos, those whose files still are where it found them.
    files = [Path(str(arguments["data"])) / name for name in validation.names]
    threshold = metrics["threshold"]
    shown = of_files(files, validation.names, labels, raw, calibrated, threshold, judged.spec, judged.heatmaps)
    metrics["mistakes"] = [mistake.to_dict() for mistake in shown]
    calibration.save(run)
    table.save(run, calibration.curve)
    (run / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False), encoding="utf-8")
    write_report(run / "report", metrics, labels, raw, calibrated, shown)
    write_card(run, metrics)
    return metrics


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FileError(f"{path}: can't be read as JSON; `unmask train` writes it") from None
    return dict(values)
