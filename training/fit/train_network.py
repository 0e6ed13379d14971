"""Training one network: from its first weights, or those of an interrupted run, to a published run."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from detector.errors import UsageError
from training.data.loader import Item
from training.faults.injection import make_fault
from training.fit.cross_fit import Networks, announce, interrupted
from training.fit.device import machine, versions
from training.fit.evaluator import Evaluator
from training.fit.frozen import FrozenFeatures, open_features
from training.fit.prepared import PreparedPhotos, prepare_photos
from training.fit.publish import publish_run
from training.fit.run_folder import FINAL, FOLDS, LAST, claim, clear, write_options
from training.models.build import ModelConfig
from training.models.checkpoint import Checkpoint
from training.models.networks import DetectorNet, PooledNet
from training.models.origin import origin
from training.models.weights import initial_model
from training.options import FitOptions, faults_in
from training.presets import PACKAGED, architecture


def train_network(options: FitOptions, accelerator: Accelerator) -> dict[str, Any]:
    """Train the network that the options ask for and publish the run; returns what `metrics.json` holds.

    All processes but the first return {}. Raises an `UnmaskError` for whatever the caller can mend.
    """
    main, out = accelerator.is_main_process, options.out
    if main:
        claim(out, resume=options.resume, overwrite=options.overwrite)
    earlier = interrupted(out / LAST, options.recorded()) if options.resume else None
    spec = earlier.image_spec if earlier else options.image_spec
    config = ModelConfig(
        architecture(options.model),
        options.hidden,
        options.dropout,
        options.head_norm,
        multiscale=options.multiscale,
        gram=options.gram,
        zoom=options.zoom,
    )

    def started() -> DetectorNet:
        torch.manual_seed(options.seed)
        with accelerator.main_process_first():  # which downloads; the others then find it done
            return initial_model(
                config,
                spec,
                weights=options.weights,
                pretrained=options.pretrained,
                packaged=options.model if options.model in PACKAGED else None,
                partial=options.partial,
            )

    model = earlier.build() if earlier else started()
    photos = prepare_photos(options, accelerator, admit=partial(_require_same_photos, earlier, out))
    options = replace(options, cross_fit=photos.crossed)
    arguments = options.recorded()
    if main and not earlier:
        clear(out)
        write_options(out, arguments)
    if main and photos.crossed:
        announce(photos.crossed, head_alone=options.freeze_backbone)
    faults, rows = faults_in(arguments), np.unique(photos.fit_rows(photos.parts))
    new_fault = partial(make_fault, faults, photos.labels, rows, seed=options.seed)
    fault = new_fault()
    evaluator = Evaluator(accelerator, config, spec, batch_size=2 * options.batch_size)
    fitted: Dataset[Item] = photos.for_fitting(fault.labels(), options.augment, options.crop)
    tuned: Dataset[Item] = photos.for_scoring()
    if options.freeze_backbone:
        fitted, tuned = _features(evaluator, cast(PooledNet, model), config, photos, fault.labels())

    def checkpoint(weights: dict[str, Tensor], metrics: dict[str, Any], resume: dict[str, Any]) -> Checkpoint:
        return Checkpoint(config, spec, weights, arguments, metrics, photos.fingerprint, resume)

    networks = Networks(options, photos, evaluator, fitted, tuned, started, new_fault, checkpoint)
    began = time.perf_counter()
    try:
        trainer = networks.trainer(model, photos.parts, fault)
        state = networks.train(trainer, photos.parts, out / LAST, earlier)
        networks.save(trainer, out / FINAL, {})
        held_out, crossed = networks.cross_fitted(state) if photos.crossed else (None, None)
    except KeyboardInterrupt:
        if main and (out / LAST).is_file():
            print("the same command with --resume goes on after the last finished epoch", file=sys.stderr)
        raise
    seconds = time.perf_counter() - began
    evaluator.load(state.best_weights)
    table = photos.scored(evaluator, held_out)
    if not main:
        accelerator.wait_for_everyone()
        return {}
    described = {
        **photos.described(),
        "cross_fit": crossed,
        "best_epoch": state.best["epoch"],
        "history": state.history,
        "faults": {**faults, **state.applied} if faults else None,
        "arguments": arguments,
        "initial_weights": origin(options.model, weights=options.weights, pretrained=options.pretrained),
        "parameters": evaluator.parameters(),
        "libraries": versions(),
        "speed": {
            **machine(accelerator),
            "epochs": state.speed,
            "images_per_second": float(np.median([epoch["images_per_second"] for epoch in state.speed])),
            "seconds": seconds,
        },
    }
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
        best=checkpoint(state.best_weights, state.best, {}),
        report=options.report,
    )
    shutil.rmtree(out / FOLDS, ignore_errors=True)  # their scores are in the table
    accelerator.wait_for_everyone()
    return metrics


def _features(
    evaluator: Evaluator, network: PooledNet, config: ModelConfig, photos: PreparedPhotos, labels: NDArray[np.int64]
) -> tuple[FrozenFeatures, FrozenFeatures]:
    """What a frozen backbone says of the photos: to fit, with these labels, and to tune."""
    accelerator = evaluator.accelerator
    network.to(accelerator.device)
    with accelerator.main_process_first():
        kept = open_features(
            network, config, photos.cache, evaluator.spec, accelerator.device, progress=accelerator.is_main_process
        )
    return FrozenFeatures(kept, labels), FrozenFeatures(kept, photos.labels)


def _require_same_photos(checkpoint: Checkpoint | None, out: Path, fingerprint: str) -> None:
    """Raise `UsageError` when there is a checkpoint and `fingerprint` is not that of the photos that it was trained on."""
    if checkpoint and checkpoint.fingerprint != fingerprint:
        raise UsageError(f"--resume: this is not the run in {out}: the photos are not the same")
