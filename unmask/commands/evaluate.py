"""`unmask evaluate` and `unmask calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from detector.errors import UsageError
from training.calibration.methods import AUTO, CalibrationMethod
from training.data.photos import check_layout
from training.fit.preflight import require_file
from training.options import CALIBRATION_HELP, RATES
from unmask.parameters import AsJson, Count, Fraction, LabelledPhotos, Labels, Seed, Switch

Part = Literal["validation", "train", "all"]


def evaluate(
    *,
    checkpoint: Path | None = None,
    model: Path | None = None,
    data: LabelledPhotos,
    labels: Labels = None,
    part: Part = "validation",
    threshold: Fraction | None = None,
    out: Path | None = None,
    family_by: str | None = None,
    group_by: str | None = None,
    robustness: Switch = False,
    robustness_photos: Annotated[int, Parameter(validator=Number(gte=2))] = 100,
    record: Switch = False,
    pointing_game: Switch = False,
    pointing_photos: Count = 200,
    seed: Seed = 0,
    json_: AsJson = False,
) -> int:
    """Evaluate a checkpoint or an exported model on labelled photos.

    Parameters
    ----------
    checkpoint
        A .pth file; the calibration.json beside it is applied.
    model
        A model.onnx, with its manifest.json beside it. Give this or --checkpoint.
    part
        Part of a folder that is divided into Train and Validation.
    threshold
        Call a photo Fake from this calibrated probability, and none Uncertain (default: the model's threshold and band).
    out
        Also write evaluation.json and report/index.html to this folder.
    family_by
        Regular expression that finds a photo's family in its path (default: the sub-folder of its class folder).
    group_by
        Regular expression that finds a photo's group in its path, such as a source or a person.
    robustness
        Also score photos that are re-encoded, grey, blurred, shrunk, made noisy, or turned into screenshots.
    robustness_photos
        Photos of each class for --robustness.
    record
        Also write the robustness into the metrics.json and the model card of the run that --checkpoint is of.
    pointing_game
        Also test whether heatmaps find what was blended into pseudo-fakes.
    pointing_photos
        Real photos for --pointing-game.
    """
    if (checkpoint is None) == (model is None):
        raise UsageError("give one of --checkpoint CKPT and --model ONNX")
    if record and (checkpoint is None or not robustness):
        raise UsageError("--record is for --robustness of a run's --checkpoint")
    require_file(checkpoint or model or Path(), "`unmask train` writes best_model.pth, and `unmask export` model.onnx")
    check_layout(data)
    from training.evaluation.evaluate import evaluate_folder, from_checkpoint, from_onnx

    evaluation = evaluate_folder(
        from_onnx(model) if model else from_checkpoint(checkpoint or Path()),
        data,
        part=part,
        label_names=labels,
        threshold=threshold,
        family_by=family_by,
        group_by=group_by,
        robustness_photos=robustness_photos if robustness else 0,
        pointing_photos=pointing_photos if pointing_game else 0,
        seed=seed,
    )
    if record and checkpoint is not None:
        from training.report.card import record_robustness

        record_robustness(checkpoint, evaluation.result)
    if out is not None:
        from training.report.report import write_evaluation

        write_evaluation(out, evaluation)
    from training.report.summary import summary_of_evaluation

    print(json.dumps(evaluation.result, indent=2) if json_ else summary_of_evaluation(evaluation.result, out))
    return 0


def calibrate(
    *,
    run: Path,
    data: LabelledPhotos,
    labels: Labels = None,
    part: Part = "all",
    calibration: Annotated[CalibrationMethod, Parameter(help=CALIBRATION_HELP)] = AUTO,
    target_fpr: Annotated[float | None, Parameter(validator=Number(gt=0, lt=0.5))] = None,
    abstain: Annotated[tuple[float, float] | None, RATES] = None,
    seed: Seed = 0,
) -> int:
    """Fit the calibration, threshold or band of a finished run again.

    Photos that the run was trained or tuned on, or is reported on, are left out.
    `unmask recalibrate ARTIFACTS --run RUN` then takes the result into artifacts that were exported before.

    Parameters
    ----------
    run
        Folder that `unmask train` wrote.
    part
        Part of a folder that is divided into Train and Validation.
    target_fpr
        Choose the threshold that flags at most this share of the real photos.
    abstain
        FPR,FNR: call photos Uncertain where at most so many real ones could not be called Fake, nor so many fake ones Real.
    """
    require_file(run / "metrics.json", "`unmask train` writes it into a run folder")
    check_layout(data)
    from training.fit.recalibrate import recalibrate
    from training.report.summary import summary

    metrics = recalibrate(
        run,
        data,
        method=calibration,
        target_fpr=target_fpr,
        abstain=abstain,
        part=part,
        label_names=labels,
        seed=seed,
    )
    print(metrics["calibration"]["note"])
    print(summary(metrics, run))
    return 0
