"""Publishing a run: its scores become a calibration, metrics, a report and a model card, written into its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from detector.files import write_json
from detector.verdict import Band
from training.calibration.abstain import Rates
from training.calibration.choice import Choice, choose
from training.calibration.methods import AUTO, fit_calibration
from training.evaluation.mistakes import Heatmaps, Pixels, find_mistakes
from training.evaluation.run_metrics import run_metrics
from training.evaluation.scores import ScoreTable
from training.models.checkpoint import BEST, Checkpoint, save_checkpoint
from training.report.card import write_card
from training.report.report import write_report

NOTHING: Mapping[str, Any] = MappingProxyType({})


def publish_run(
    out: Path,
    table: ScoreTable,
    described: Mapping[str, Any],
    *,
    method: str,
    target_fpr: float | None,
    abstain: Rates | None,
    seed: int,
    pixels: Pixels,
    heatmaps: Heatmaps,
    held_out: ScoreTable | None = None,
    calibrated_on: Mapping[str, Any] = NOTHING,
    best: Checkpoint | None = None,
    report: bool = True,
) -> dict[str, Any]:
    """Calibrate and evaluate a scored run, and write everything that a run folder holds; returns what `metrics.json` does.

    table: with the scores of the validation photos. described: what else `metrics.json` says. pixels, heatmaps: the
    pictures of the validation photos and what speaks in them, for the worst mistakes. held_out: the scored photos that the
    calibration is fitted on; None for the table's own. calibrated_on: said of these. best: the epoch that was kept, where
    it is not in the folder yet; it records the validation metrics. report: whether the page and its plots are written.
    Raises `TooFewToCalibrate`, and `FileError` where something can't be written.
    """
    validation = table.of("validation")
    held_out = table.of("calibrate") if held_out is None else held_out
    choice = choose(held_out.raw, held_out.labels) if method == AUTO else Choice(method, "it was asked for")
    calibration = fit_calibration(choice.method, held_out.raw, held_out.labels)
    measured = run_metrics(validation, calibration, choice, held_out, target_fpr=target_fpr, abstain=abstain, seed=seed)
    labels, raw, calibrated = validation.labels, validation.raw, calibration.curve(validation.raw)
    decided = measured["threshold"], Band.from_list(measured["uncertain"])
    mistakes = find_mistakes(validation.names, labels, raw, calibrated, *decided, pixels, heatmaps)
    metrics = {
        **described,
        **measured,
        "calibration": {**measured["calibration"], **calibrated_on},
        "mistakes": [mistake.to_dict() for mistake in mistakes],
    }
    if best is not None:
        save_checkpoint(out / BEST, replace(best, metrics={**best.metrics, "validation": metrics["validation"]}))
    calibration.save(out)
    table.save(out, calibration.curve)
    write_json(out / "metrics.json", metrics)
    if report:
        write_report(out / "report", metrics, labels, raw, calibrated, mistakes)
    write_card(out, metrics)
    return metrics
