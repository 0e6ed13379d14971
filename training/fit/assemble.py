"""Assembling an ensemble: finished runs averaged into one network, calibrated, evaluated and published as a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from detector.errors import FileError
from detector.spec import ImageSpec
from training.calibration.logistic import EDGE
from training.evaluation.scores import FILE, ScoreTable
from training.fit.device import machine, versions
from training.fit.ensemble import Member, agreed_options, average, by_fold, read_members, require_unseen
from training.fit.evaluator import Evaluator
from training.fit.prepared import PreparedPhotos, prepare_photos
from training.fit.publish import publish_run
from training.fit.run_folder import claim, clear, write_options
from training.models.checkpoint import Checkpoint
from training.options import FitOptions

CROSS_FITTED_NOTE = (
    " The first and the third part are the same photos here, in folds: each member left another fold aside, and every photo "
    "was scored, for the curve, by the members that had left it aside."
)


def assemble_ensemble(options: FitOptions, accelerator: Accelerator) -> dict[str, Any]:
    """Average the runs that `options.members` names and publish the ensemble; returns what `metrics.json` holds.

    Nothing is trained. All processes but the first return {}. Raises an `UnmaskError` for whatever the caller can mend.
    """
    members = read_members(options.members, options.out)
    options = agreed_options(options, members)
    main, out, arguments = accelerator.is_main_process, options.out, options.recorded()
    spec = members[0].checkpoint.image_spec
    if main:
        claim(out, overwrite=options.overwrite)
    photos = prepare_photos(options, accelerator, admit=partial(require_unseen, members))
    if main:
        clear(out)
        write_options(out, arguments)
    config, model = average(members, mirror=options.mirror)
    evaluator = Evaluator(accelerator, config, spec, batch_size=2 * options.batch_size)
    evaluator.load(weights := model.state_dict())
    held_out = None
    if options.folds:
        held_out = _by_the_unseeing(accelerator, photos, members, spec, evaluator.batch_size, options.mirror)
    elif photos.crossed:
        held_out = _mean_of_theirs(photos, members)
    table = photos.scored(evaluator, held_out)
    if not main:
        accelerator.wait_for_everyone()
        return {}
    described = {
        **photos.described(),
        "cross_fit": {"folds": options.folds or photos.crossed} if held_out is not None else None,
        "faults": None,
        "arguments": arguments,
        "parameters": evaluator.parameters(),
        "libraries": versions(),
        "speed": {**machine(accelerator), "epochs": []},
    }
    if options.folds:
        described["split"] += CROSS_FITTED_NOTE
    metrics = publish_run(
        out,
        table,
        described,
        method=options.calibration,
        target_fpr=options.target_fpr,
        abstain=options.abstain,
        seed=options.seed,
        pixels=photos.validation_pixels,
        heatmaps=evaluator.heatmaps,
        best=Checkpoint(config, spec, weights, arguments, {}, photos.fingerprint),
        report=options.report,
    )
    accelerator.wait_for_everyone()
    return metrics


def _by_the_unseeing(
    accelerator: Accelerator,
    photos: PreparedPhotos,
    members: Sequence[Member],
    spec: ImageSpec,
    batch_size: int,
    mirror: bool,
) -> NDArray[np.float32]:
    """Raw probabilities of the calibration photos, which are in folds: each from the members that have not seen it."""
    rows, raw = photos.parts.calibrate, np.empty(len(photos.parts.calibrate), np.float32)
    for fold, unseeing in by_fold(members).items():
        config, model = average(unseeing, mirror=mirror)
        evaluator = Evaluator(accelerator, config, spec, batch_size=batch_size)
        evaluator.load(model.state_dict())
        aside = photos.divided(fold).calibrate
        raw[np.searchsorted(rows, aside)] = evaluator.probabilities(photos.for_scoring(), aside)
    return raw


def _mean_of_theirs(photos: PreparedPhotos, members: Sequence[Member]) -> NDArray[np.float32]:
    """Raw probabilities of the calibration photos: the mean logit of the networks that scored them for the members, in each
    of which the photo's fold was left out."""
    names = photos.names(photos.parts.calibrate)
    logits = []
    for member in members:
        table = ScoreTable.load(member.run)
        scored = dict(zip(table.names, table.raw.astype(np.float64), strict=True))
        raw = np.clip([scored.get(name, np.nan) for name in names], EDGE, 1 - EDGE)
        if np.isnan(raw).any():
            raise FileError(f"{member.run / FILE}: lacks scores of photos that the run was calibrated on")
        logits.append(np.log(raw) - np.log1p(-raw))
    return np.asarray(1 / (1 + np.exp(-np.mean(logits, axis=0))), np.float32)
