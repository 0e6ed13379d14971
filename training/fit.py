"""Fit: a folder of labelled photos in, a calibrated checkpoint and an honest report out."""

from __future__ import annotations

import json
import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from detector.errors import UsageError
from training.cache import PhotoCache, open_cache
from training.calibrate import fit_isotonic, save_calibration
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.data import Photo, counts, divide, find_photos, fingerprint, unreadable_warning
from training.device import make_accelerator
from training.faults import faults_in, make_fault
from training.loader import CachedPhotos, default_workers, make_loader
from training.loop import Trainer, sigmoid
from training.metrics import evaluate, score_histogram
from training.models import ModelConfig
from training.networks import DetectorNet
from training.options import FitOptions
from training.report import write_report
from training.weights import initial_model

LAST = "last.pth"
WRITTEN = ("best_model.pth", "final_model.pth", LAST, "calibrator.joblib", "calibration.json", "metrics.json", "report")
LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "scikit-learn", "numpy", "pillow")
SPLIT_NOTE = (
    "The training photos are divided into three parts that share no photo. The network is fitted on the first. "
    "The second decides when the learning rate falls, when training stops and which epoch is kept. "
    "The calibration curve is fitted on the third and on nothing else. "
    "Validation photos are only reported on: nothing was chosen or fitted with them."
)


def fit(options: FitOptions) -> dict[str, Any]:
    """Train, calibrate, evaluate and write the run folder; returns what `metrics.json` holds.

    Raises `UsageError` or another `UnmaskError` for whatever the caller can mend.
    """
    accelerator = make_accelerator(options)
    main = accelerator.is_main_process
    if main:
        _claim(options)
    photos = find_photos(options.data)
    checkpoint = load_checkpoint(options.out / LAST) if options.resume and (options.out / LAST).is_file() else None
    config = ModelConfig(options.model, options.hidden, options.dropout, options.head_norm)
    torch.manual_seed(options.seed)
    with accelerator.main_process_first():  # which downloads and decodes; the others then find it done
        model = (
            checkpoint.build()
            if checkpoint
            else initial_model(config, options.image_spec, weights=options.weights, pretrained=options.pretrained)
        )
        content = fingerprint(photos, progress=main)
        if checkpoint:
            _require_same(checkpoint, options, content)
        cache = open_cache(photos, content, options.image_spec, options.cache_dir or options.out / "cache", progress=main)
    if main and cache.unreadable:
        print(unreadable_warning(cache.unreadable, len(photos)), file=sys.stderr)
    run = _Run(accelerator, options, config, photos, cache, content)
    if main and not checkpoint:
        _clear(options.out)
    return run.finish(run.train(model, checkpoint))


class _Run:
    """What the steps of one fit share."""

    def __init__(
        self,
        accelerator: Accelerator,
        options: FitOptions,
        config: ModelConfig,
        photos: list[Photo],
        cache: PhotoCache,
        fingerprint: str,
    ) -> None:
        self.accelerator = accelerator
        self.options = options
        self.cache = cache
        self.fingerprint = fingerprint
        self.config = config
        self.labels = np.array([photo.label for photo in photos], np.int64)
        self.parts = divide(
            photos,
            np.array([photo.name not in cache.unreadable for photo in photos]),
            tune=options.tune_fraction,
            calibrate=options.calibrate_fraction if options.calibration != "none" else 0,
            seed=options.split_seed,
        )

    def train(self, model: DetectorNet, checkpoint: Checkpoint | None) -> Trainer:
        """The trainer after its last epoch, gone on from `checkpoint` where there is one."""
        parts = self.parts
        fault = make_fault(self.options, self.labels, parts.fit)
        fit, tune = self._loader(parts.fit, training=True, labels=fault.labels()), self._loader(parts.tune)
        trainer = Trainer(self.accelerator, model, self.config, fit, tune, self.labels[parts.tune], self.options, fault)
        if checkpoint:
            trainer.restore(checkpoint.weights, checkpoint.resume)
        try:
            trainer.run(
                after_epoch=lambda: self._save(LAST, trainer.weights(), trainer.state.history[-1], trainer.resume_values())
            )
        except KeyboardInterrupt:
            if self.accelerator.is_main_process and trainer.state.history:
                print("the same command with --resume goes on after the last finished epoch", file=sys.stderr)
            raise
        return trainer

    def _loader(self, rows: np.ndarray, *, training: bool = False, labels: NDArray[np.int64] | None = None) -> DataLoader:
        processes, on_cpu = self.accelerator.num_processes, self.accelerator.device.type == "cpu"
        workers = self.options.workers
        batch = min(self.options.batch_size, len(rows)) // processes * processes if training else 2 * self.options.batch_size
        return make_loader(
            CachedPhotos(self.cache.path, self.labels if labels is None else labels),
            rows,
            batch_size=batch,
            seed=self.options.seed if training else None,
            workers=(default_workers(processes, on_cpu) if workers is None else workers) if training else 0,
            pin=self.accelerator.device.type == "cuda",
        )

    def _save(self, name: str, weights: dict, metrics: dict[str, Any], resume: dict[str, Any] | None = None) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.options.out / name,
                Checkpoint(
                    model_config=self.config,
                    image_spec=self.options.image_spec,
                    weights=weights,
                    arguments=self.options.recorded(),
                    metrics=metrics,
                    fingerprint=self.fingerprint,
                    resume=resume or {},
                ),
            )

    def finish(self, trainer: Trainer) -> dict[str, Any]:
        """Calibrate and evaluate the best epoch, and write everything that a run folder holds."""
        state, parts, out = trainer.state, self.parts, self.options.out
        trainer.judge.load(state.best_weights)
        raw = {
            name: sigmoid(trainer.judge.logits(self.accelerator.prepare(self._loader(rows)))) if len(rows) else None
            for name, rows in (("calibrate", parts.calibrate), ("validation", parts.validation))
        }
        final = trainer.weights()
        metrics: dict[str, Any] = {}
        if self.accelerator.is_main_process:
            held_out, validation = raw["calibrate"], raw["validation"]
            assert validation is not None
            isotonic = None if held_out is None else fit_isotonic(held_out, self.labels[parts.calibrate])
            curve = save_calibration(out, isotonic, len(parts.calibrate))
            calibrated, labels = curve(validation), self.labels[parts.validation]
            metrics = self._metrics(trainer, evaluate(labels, validation, calibrated, seed=self.options.seed))
            metrics["reference_scores"] = score_histogram(calibrated)
            self._save("best_model.pth", state.best_weights, {**state.best, "validation": metrics["validation"]})
            self._save("final_model.pth", final, state.history[-1])
            (out / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False), encoding="utf-8")
            write_report(out / "report", metrics, labels, validation, calibrated)
        self.accelerator.wait_for_everyone()
        return metrics

    def _metrics(self, trainer: Trainer, validation: dict[str, Any]) -> dict[str, Any]:
        state = trainer.state
        return {
            "validation": validation,
            "best_epoch": state.best["epoch"],
            "history": state.history,
            "counts": counts(self.parts, self.labels),
            "unreadable": self.cache.unreadable,
            "split": SPLIT_NOTE,
            "calibration": {"method": self.options.calibration, "n": len(self.parts.calibrate)},
            "threshold": validation["threshold"],
            "faults": {**faults, **state.applied} if (faults := faults_in(self.options.recorded())) else None,
            "fingerprint": self.fingerprint,
            "arguments": self.options.recorded(),
            "parameters": sum(p.numel() for p in trainer.judge.model.parameters()),
            "libraries": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
            "speed": {
                "device": str(self.accelerator.device),
                "precision": self.accelerator.mixed_precision,
                "processes": self.accelerator.num_processes,
                "threads": torch.get_num_threads(),
                "epochs": state.speed,
                "images_per_second": float(np.median([e["images_per_second"] for e in state.speed])),
            },
        }


def _claim(options: FitOptions) -> None:
    """Make the run folder, or refuse one that holds something."""
    out = options.out
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; give a folder")
    there = sorted(e.name for e in out.iterdir() if e.name != "cache") if out.is_dir() else []
    if there and not (options.resume or options.overwrite):
        what = (
            "a run already; --resume goes on with it, --overwrite replaces it"
            if set(there) & set(WRITTEN)
            else (f"{', '.join(there[:5])}; give a folder of its own")
        )
        raise UsageError(f"--out {out}: holds {what}")
    out.mkdir(parents=True, exist_ok=True)


def _require_same(checkpoint: Checkpoint, options: FitOptions, fingerprint: str) -> None:
    """Refuse to go on with another run than the checkpoint's; where its photos lie is of no matter."""
    then, now = ({k: v for k, v in values.items() if k != "data"} for values in (checkpoint.arguments, options.recorded()))
    differing = [f"{k} was {then.get(k)!r} and is {now.get(k)!r}" for k in sorted({*then, *now}) if then.get(k) != now.get(k)]
    if checkpoint.fingerprint != fingerprint:
        differing.append("the photos are not the same")
    if differing:
        raise UsageError(f"--resume: this is not the run in {options.out}: {'; '.join(differing)}")


def _clear(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for path in (out / name for name in WRITTEN):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
