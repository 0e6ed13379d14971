"""Assembling an ensemble: finished runs averaged into one network, calibrated, evaluated and published as a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from detector.spec import ImageSpec
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
    crossed = bool(options.folds)
    held_out = _cross_fitted(accelerator, photos, members, spec, evaluator.batch_size, options.mirror) if crossed else None
    table = photos.scored(evaluator, held_out)
    if not main:
        accelerator.wait_for_everyone()
        return {}
    described = {
        **photos.described(),
        "faults": None,
        "arguments": arguments,
        "parameters": evaluator.parameters(),
        "libraries": versions(),
        "speed": {**machine(accelerator), "epochs": []},
    }
    if crossed:
        described["split"] += CROSS_FITTED_NOTE
        described["counts"] |= {"fit": described["counts"]["calibrate"]}
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


def _cross_fitted(
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
