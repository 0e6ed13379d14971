"""The metrics of a run that follow from its raw scores and its calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.model_warnings import model_warnings
from detector.verdict import DEFAULT_THRESHOLD, Band
from training.calibration.abstain import Rates, choose_band
from training.calibration.choice import Choice
from training.calibration.methods import Calibration, fit_all
from training.calibration.thresholds import threshold_for_fpr
from training.evaluation.abstention import abstention, called
from training.evaluation.families import family_names, family_rows
from training.evaluation.metrics import MEASURES, compare_probabilities, evaluate, probability_measures, score_histogram
from training.evaluation.scores import ScoreTable


def run_metrics(
    validation: ScoreTable,
    calibration: Calibration,
    choice: Choice,
    held_out: ScoreTable,
    *,
    target_fpr: float | None,
    abstain: Rates | None,
    seed: int,
) -> dict[str, Any]:
    """The part of `metrics.json` that changes with the calibration, as JSON values.

    validation: scored photos that are reported on. choice: how the method of `calibration` was chosen. held_out: those that
    `calibration` was fitted on, from which the threshold or the band is chosen too; it may be empty when none was asked for.
    All methods are fitted on them and compared on `validation`, which decides nothing.
    """
    labels, raw = validation.labels, validation.raw
    calibrated = calibration.curve(raw)
    threshold_choice = band_choice = None
    if target_fpr is not None:
        threshold_choice = threshold_for_fpr(calibration.curve(held_out.raw), held_out.labels, target_fpr)
    if abstain is not None:
        band_choice = choose_band(calibration.curve(held_out.raw), held_out.labels, abstain)
    threshold = (threshold_choice or band_choice or {"threshold": DEFAULT_THRESHOLD})["threshold"]
    band = Band.from_list(band_choice["band"]) if band_choice else None
    ways = fit_all(held_out.raw, held_out.labels) if len(held_out.labels) else {"none": Calibration()}
    validated = evaluate(labels, raw, calibrated, threshold=threshold, seed=seed)
    # Measured there already, before and after calibration; only the other methods take time of their own.
    compared = {"none": {error: validated[f"{error}_raw"] for error in MEASURES}}
    compared[calibration.method] = {error: validated[error] for error in MEASURES}
    others = {name: way.curve(raw) for name, way in ways.items() if name not in compared}
    compared |= compare_probabilities(labels, others, seed=seed)
    return {
        "validation": validated,
        "families": families(validation, raw, called(calibrated, threshold, band)[0], seed=seed),
        "calibration": {
            "method": calibration.method,
            "n": calibration.n,
            "why": choice.why,
            "candidates": candidates(held_out.labels, choice),
        },
        "calibrations": {name: compared[name] for name in ways},
        "threshold": threshold,
        "threshold_choice": threshold_choice,
        "uncertain": band.to_list() if band else None,
        "band_choice": band_choice,
        "abstention": abstention(labels, calibrated, band) if band else None,
        "reference_scores": score_histogram(calibrated),
        "warnings": model_warnings(validated, threshold, band),
    }


def candidates(labels: NDArray[np.int64], choice: Choice) -> dict[str, dict[str, float]]:
    """What each candidate's cross-validated probabilities of the calibration photos are worth."""
    once = np.ones((1, len(labels)))
    return {
        name: {measure: float(value[0]) for measure, value in probability_measures(labels, p, once).items()}
        for name, p in choice.held_out.items()
    }


def families(
    photos: ScoreTable, raw: NDArray[np.float32], flagged: NDArray[np.bool_], *, seed: int
) -> list[dict[str, Any]] | None:
    """Rows by sub-folder, where there are any."""
    found = family_names(photos.names)
    return None if found is None else family_rows(found, photos.labels, raw, flagged, seed=seed)
