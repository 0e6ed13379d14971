"""Training one network: from its first weights, or those of an interrupted run, to a published run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
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
from training.data.loader import Item, default_workers, make_loader
from training.faults.injection import make_fault
from training.fit.device import machine, versions
from training.fit.evaluator import Evaluator
from training.fit.frozen import FrozenFeatures, open_features
from training.fit.loop import Recipe, Trainer
from training.fit.prepared import PreparedPhotos, prepare_photos
from training.fit.publish import publish_run
from training.fit.run_folder import FINAL, LAST, claim, clear, write_options
from training.models.build import ModelConfig
from training.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.models.networks import PooledNet
from training.models.origin import origin
from training.models.weights import initial_model
from training.options import FitOptions, faults_in
from training.presets import PACKAGED, architecture


def train_network(options: FitOptions, accelerator: Accelerator) -> dict[str, Any]:
    """Train the network that the options ask for and publish the run; returns what `metrics.json` holds.

    All processes but the first return {}. Raises an `UnmaskError` for whatever the caller can mend.
    """
    main, out, arguments = accelerator.is_main_process, options.out, options.recorded()
    if main:
        claim(out, resume=options.resume, overwrite=options.overwrite)
    earlier = _interrupted(out, arguments) if options.resume else None
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
    torch.manual_seed(options.seed)
    with accelerator.main_process_first():  # which downloads; the others then find it done
        if earlier:
            model = earlier.build()
        else:
            model = initial_model(
                config,
                spec,
                weights=options.weights,
                pretrained=options.pretrained,
                packaged=options.model if options.model in PACKAGED else None,
                partial=options.partial,
            )
    photos = prepare_photos(options, accelerator, admit=partial(_require_same_photos, earlier, out))
    if main and not earlier:
        clear(out)
        write_options(out, arguments)
    faults = faults_in(arguments)
    fault = make_fault(faults, photos.labels, np.unique(photos.fit_rows), seed=options.seed)
    evaluator = Evaluator(accelerator, config, spec, batch_size=2 * options.batch_size)
    fitted: Dataset[Item] = photos.for_fitting(fault.labels(), options.augment, options.crop)
    tuned: Dataset[Item] = photos.for_scoring()
    if options.freeze_backbone:
        fitted, tuned = _features(evaluator, cast(PooledNet, model), config, photos, fault.labels())
    processes = accelerator.num_processes
    loader = make_loader(
        fitted,
        photos.fit_rows,
        batch_size=min(options.batch_size, len(photos.fit_rows)) // processes * processes,
        seed=options.seed,
        workers=default_workers(processes) if options.workers is None else options.workers,
        pin=accelerator.device.type == "cuda",
    )
    recipe = Recipe(
        epochs=options.epochs,
        lr=options.lr,
        weight_decay=options.weight_decay,
        clip=options.clip,
        schedule=options.schedule,
        patience=options.patience,
        lr_patience=options.lr_patience,
        mixup=options.mixup,
        seed=options.seed,
        head_alone=options.freeze_backbone,
        tracked=options.tensorboard,
    )
    tune = photos.parts.tune
    trainer = Trainer(accelerator, model, evaluator, loader, evaluator.loader(tuned, tune), photos.labels[tune], recipe, fault)

    def checkpoint(weights: dict[str, Tensor], metrics: dict[str, Any], **resume: Any) -> Checkpoint:
        return Checkpoint(config, spec, weights, arguments, metrics, photos.fingerprint, resume)

    def save(name: str, **resume: Any) -> None:
        now = checkpoint(trainer.weights(), trainer.state.history[-1], **resume)
        if main:
            save_checkpoint(out / name, now)

    if earlier:
        trainer.restore(earlier.weights, earlier.resume)
    try:
        state = trainer.run(after_epoch=lambda: save(LAST, **trainer.resume_values()))
    except KeyboardInterrupt:
        if main and trainer.state.history:
            print("the same command with --resume goes on after the last finished epoch", file=sys.stderr)
        raise
    save(FINAL)
    evaluator.load(state.best_weights)
    table = photos.scored(evaluator)
    if not main:
        accelerator.wait_for_everyone()
        return {}
    described = {
        **photos.described(),
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
        best=checkpoint(state.best_weights, state.best),
        report=options.report,
    )
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


def _interrupted(out: Path, arguments: Mapping[str, Any]) -> Checkpoint | None:
    """The last checkpoint of the run in `out`; None where no epoch was finished.

    Raises `UsageError` when it was trained with other arguments than these; where its photos lay is of no matter.
    """
    if not (out / LAST).is_file():
        return None
    checkpoint = load_checkpoint(out / LAST)
    then, now = ({k: v for k, v in values.items() if k != "data"} for values in (checkpoint.arguments, arguments))
    differing = [f"{k} was {then.get(k)!r} and is {now.get(k)!r}" for k in sorted({*then, *now}) if then.get(k) != now.get(k)]
    if differing:
        raise UsageError(f"--resume: this is not the run in {out}: {'; '.join(differing)}")
    return checkpoint


def _require_same_photos(checkpoint: Checkpoint | None, out: Path, fingerprint: str) -> None:
    """Raise `UsageError` when there is a checkpoint and `fingerprint` is not that of the photos that it was trained on."""
    if checkpoint and checkpoint.fingerprint != fingerprint:
        raise UsageError(f"--resume: this is not the run in {out}: the photos are not the same")
