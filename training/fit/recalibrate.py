"""Recalibrate: a finished run's curve, threshold and band fitted anew on labelled photos; its weights stay as they are."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from detector.errors import UsageError
from detector.files import read_json, shown
from detector.packed import Readable
from training.calibration.abstain import Rates, require_enough_to_abstain
from training.calibration.methods import AUTO, few_photos_warning, require_enough
from training.data.photos import class_counts, find_photos, fingerprint, unreadable_warning
from training.errors import DataProblem, TooFewToAbstain, TooFewToCalibrate
from training.evaluation.evaluate import from_checkpoint, scores_of
from training.evaluation.mistakes import pixels_of
from training.evaluation.scores import ScoreTable, content_hashes
from training.fit.publish import publish_run
from training.models.checkpoint import BEST
from training.options import rates_problem

# A photo that the weights were fitted or chosen by is scored too surely, and one that is reported on must decide nothing.
LEFT_OUT = {"fit": "fitted on", "tune": "tuned on", "validation": "reported on"}


def recalibrate(
    run: Path,
    data: Path,
    *,
    method: str = AUTO,
    target_fpr: float | None = None,
    abstain: Rates | None = None,
    part: str = "all",
    label_names: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit a run's calibration anew on `data` and write it into the run; returns what `metrics.json` then holds.

    Photos whose content the run was fitted, tuned or is reported on are left out, so that `data` may be the run's own folder:
    what is left there are the photos it was calibrated on. Where the calibration is cross-fitted these were fitted on too, and
    keep the scores of the networks that had not seen them. `calibration.json`, `calibrator.joblib`, `metrics.json`,
    `scores.csv`, the report and the model card are written; what is reported of the validation photos is computed from their
    raw scores.
    A band is chosen anew with `abstain` and otherwise goes: the earlier one belongs to the earlier curve.
    Raises `UsageError` for rates that can't be, `FileError` when `run` is none or `scores.csv` is missing,
    `TooFewToCalibrate`, `TooFewToAbstain`, and what `find_photos` raises.
    """
    if problem := rates_problem(abstain, target_fpr):
        raise UsageError(problem)
    table, metrics = ScoreTable.load(run), read_json(run / "metrics.json", hint="`unmask train` writes it")
    metrics.pop("robustness", None)  # its verdicts are those of the earlier curve
    photos = [p for p in find_photos(data, labels=label_names) if part == "all" or p.part in (part, None)]
    seen = dict(zip(table.hashes, table.parts, strict=True))
    hashes = content_hashes(photos)
    arguments = metrics["arguments"]
    left_out = Counter(LEFT_OUT[seen[content]] for content in hashes if seen.get(content) in LEFT_OUT)
    kept = [photo for photo, content in zip(photos, hashes, strict=True) if seen.get(content) not in LEFT_OUT]
    kept_hashes = [content for content in hashes if seen.get(content) not in LEFT_OUT]
    without = "; ".join(f"{n} left out that the run was {what}" for what, n in left_out.items())
    try:
        require_enough(method, len(kept))
        if abstain:
            require_enough_to_abstain(np.array([photo.label for photo in kept], np.int64), abstain)
    except (TooFewToCalibrate, TooFewToAbstain) as error:
        raise type(error)(f"{error.message} ({without})" if without else error.message) from None
    model = from_checkpoint(run / BEST)
    rows, raw, _, unreadable = scores_of(model, kept)
    if metrics.get("cross_fit"):
        own = table.of("calibrate")
        scored = dict(zip(zip(own.hashes, own.labels.tolist(), strict=True), own.raw, strict=True))
        found = [scored.get((kept_hashes[row], kept[row].label), score) for row, score in zip(rows, raw, strict=True)]
        raw = np.array(found, np.float32)
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
    for warning in (few_photos_warning(method, len(rows)), _dropped_band(metrics) if abstain is None else None):
        if warning:
            print(warning, file=sys.stderr)
    note = f"recalibrated on {len(rows)} photos of {shown(data.name)} ({counts['real']} real, {counts['fake']} fake)"
    validation = table.of("validation")
    places = _files(Path(str(arguments["data"])), arguments.get("labels"))
    files: list[Readable] = [places.get(name, Path(name)) for name in validation.names]
    return publish_run(
        run,
        table,
        metrics,
        method=method,
        target_fpr=target_fpr,
        abstain=abstain,
        seed=seed,
        pixels=pixels_of(files, model.spec),
        heatmaps=model.heatmaps,
        held_out=held_out,
        calibrated_on={
            "recalibrated": True,
            "data": shown(data.name),
            "fingerprint": fingerprint([kept[row] for row in rows], [kept_hashes[row] for row in rows]),
            "counts": counts,
            "left_out": dict(left_out),
            "note": f"{note}; {without}" if without else note,
        },
    )


def _dropped_band(metrics: dict[str, Any]) -> str | None:
    """What to tell the user of a run whose band is not chosen anew."""
    if not metrics.get("uncertain"):
        return None
    choice = metrics["band_choice"]
    return (
        "warning: the run's band of Uncertain was chosen on its earlier curve and is dropped; "
        f"--abstain {choice['target_fpr']:g},{choice['target_fnr']:g} chooses it anew"
    )


def _files(data: Path, labels: str | None) -> dict[str, Readable]:
    """The files of a run's own photos by name, where its folder still is there."""
    try:
        return {photo.name: photo.path for photo in find_photos(data, fakes_needed=False, labels=labels)}
    except DataProblem:
        return {}
