"""Fit: a folder of labelled photos in, a calibrated checkpoint and an honest report out."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.audit.audit import Audit, audit_photos
from training.audit.duplicates import group_numbers
from training.calibration.methods import Calibration, few_warning, fit_calibration, require_enough
from training.data.cache import PhotoCache, open_cache
from training.data.facts import read_facts
from training.data.loader import CachedPhotos, Item, default_workers, make_loader, normalise
from training.data.photos import REAL, Parts, Photo, counts, divide, find_photos, fingerprint, unreadable_warning
from training.data.pseudo_fakes import NOTE, joined, paired
from training.evaluation.mistakes import Mistake, illustrate, worst
from training.evaluation.run_metrics import run_metrics
from training.evaluation.scores import ScoreTable
from training.faults.injection import make_fault
from training.fit.device import make_accelerator
from training.fit.ensemble import Member, as_members, average, by_fold, read_members, require_unseen
from training.fit.frozen import FrozenFeatures, open_features
from training.fit.loop import Judge, State, Trainer, sigmoid
from training.fit.run_folder import LAST, claim, clear, require_same
from training.models.build import ModelConfig
from training.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.models.networks import DetectorNet, PooledNet
from training.models.weights import initial_model
from training.options import FitOptions, faults_in
from training.report.card import write_card
from training.report.report import write_report

LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "scikit-learn", "numpy", "pillow")
SPLIT_NOTE = (
    "The training photos are divided into three parts that share no photo. The network is fitted on the first. "
    "The second decides when the learning rate falls, when training stops and which epoch is kept. "
    "The calibration curve is fitted on the third and on nothing else. "
    "Validation photos are only reported on: nothing was chosen or fitted with them."
)
CROSS_FITTED_NOTE = (
    " The first and the third part are the same photos here, in folds: each member left another fold aside, and every photo "
    "was scored, for the curve, by the members that had left it aside."
)


def fit(options: FitOptions) -> dict[str, Any]:
    """Train, calibrate, evaluate and write the run folder; returns what `metrics.json` holds. An ensemble is not trained.

    Raises `UsageError` or another `UnmaskError` for whatever the caller can mend.
    """
    members = read_members(options) if options.members else []
    if members:
        options = as_members(options, members)
    accelerator = make_accelerator(options)
    main = accelerator.is_main_process
    if main:
        claim(options)
    photos = find_photos(options.data, fakes_needed=options.pseudo_fakes == "none")
    checkpoint = load_checkpoint(options.out / LAST) if options.resume and (options.out / LAST).is_file() else None
    config = ModelConfig(
        options.model,
        options.hidden,
        options.dropout,
        options.head_norm,
        multiscale=options.multiscale,
        gram=options.gram,
        zoom=options.zoom,
    )
    torch.manual_seed(options.seed)
    with accelerator.main_process_first():  # which downloads and decodes; the others then find it done
        if members:
            config, model = average(members, mirror=options.mirror)
        elif checkpoint:
            model = checkpoint.build()
        else:
            model = initial_model(config, options.image_spec, weights=options.weights, pretrained=options.pretrained)
        kept_in = options.cache_dir or options.out / "cache"
        facts = read_facts(photos, kept_in, progress=main)
        content = fingerprint(photos, [fact.sha256 for fact in facts])
        if members:
            require_unseen(members, content)
        if checkpoint:
            require_same(checkpoint, options, content)
        found = audit_photos(photos, facts, options.group_by)
        found.require_no_leak()
        cache = open_cache(photos, content, options.image_spec, kept_in, equalise=options.equalise, progress=main)
    if main and cache.unreadable:
        print(unreadable_warning(cache.unreadable, len(photos)), file=sys.stderr)
    if main and (warning := found.warning()):
        print(warning, file=sys.stderr)
    run = _Run(accelerator, options, config, photos, [fact.sha256 for fact in facts], cache, content, found)
    if main and not checkpoint:
        clear(options.out)
    if members:
        judge, state = Judge(accelerator, config, options.image_spec), State(best_weights=model.state_dict())
        metrics = run.finish(judge, state, unseen=run.cross_fitted(members))
    else:
        trainer = run.train(model, checkpoint)
        metrics = run.finish(trainer.judge, trainer.state, trainer.weights())
    accelerator.end_training()  # closes TensorBoard's log, and leaves the other processes
    return metrics


class _Run:
    """What the steps of one fit share."""

    def __init__(
        self,
        accelerator: Accelerator,
        options: FitOptions,
        config: ModelConfig,
        photos: list[Photo],
        hashes: list[str],
        cache: PhotoCache,
        fingerprint: str,
        audit: Audit,
    ) -> None:
        self.accelerator = accelerator
        self.options = options
        self.cache = cache
        self.fingerprint = fingerprint
        self.config = config
        self.audit = audit
        self.labels = np.array([photo.label for photo in photos], np.int64)
        pseudo = options.pseudo_fakes != "none"
        self.only_real = pseudo and bool((self.labels == REAL).all())
        readable = np.array([photo.name not in cache.unreadable for photo in photos])
        groups = group_numbers(len(photos), audit.matches, audit.groups)

        def divided(fold: int | None) -> Parts:
            parts = divide(
                photos,
                readable,
                tune=options.tune_fraction,
                calibrate=options.calibrate_fraction if options.calibration != "none" or options.target_fpr else 0,
                folds=options.folds,
                fold=fold,
                seed=options.split_seed,
                groups=groups,
                fakes_needed=not pseudo,
            )
            return paired(parts, len(photos)) if self.only_real else parts

        self.divided = divided
        self.parts = divided(options.fold)
        self.fit_rows = self.parts.fit
        if pseudo:
            if not self.only_real:
                self.fit_rows = joined(self.parts.fit, self.labels, len(photos))
            self.labels = np.concatenate([self.labels, np.ones_like(self.labels)])  # row n + r: the pseudo-fake of row r
        held_out = len(self.parts.calibrate)
        require_enough(options.calibration, held_out)
        if accelerator.is_main_process and (warning := few_warning(options.calibration, held_out)):
            print(warning, file=sys.stderr)
        self.table = self._table(photos, hashes)

    def _table(self, photos: list[Photo], hashes: list[str]) -> ScoreTable:
        """The rows of the score table, still without scores; hashes: of each photo's file."""
        part_of = {int(row): part for part, rows in self.parts.items() for row in rows}
        used, n = sorted(part_of), len(photos)
        return ScoreTable(
            tuple(photos[row % n].name + " (pseudo-fake)" * (row >= n) for row in used),
            self.labels[used],
            tuple(part_of[row] for row in used),
            tuple(hashes[row % n] for row in used),
            np.full(len(used), np.nan, np.float32),
        )

    def train(self, model: DetectorNet, checkpoint: Checkpoint | None) -> Trainer:
        """The trainer after its last epoch, gone on from `checkpoint` where there is one."""
        parts = self.parts
        fault = make_fault(self.options, self.labels, np.unique(self.fit_rows))
        fit_photos, tune_photos = self._sources(model, fault.labels())
        fit, tune = self._loader(fit_photos, self.fit_rows, training=True), self._loader(tune_photos, parts.tune)
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

    def _sources(self, model: DetectorNet, labels: NDArray[np.int64]) -> tuple[Dataset[Item], Dataset[Item]]:
        """What is fitted, to these labels, and what tunes: photos, or the features of a frozen backbone."""
        if not self.options.freeze_backbone:
            return self._photos(labels, training=True), self._photos()
        accelerator, spec = self.accelerator, self.options.image_spec
        network = cast(PooledNet, model.to(accelerator.device))
        with accelerator.main_process_first():
            kept = open_features(
                network, self.config, self.cache, spec, accelerator.device, progress=accelerator.is_main_process
            )
        return FrozenFeatures(kept, labels), FrozenFeatures(kept, self.labels)

    def _loader(self, photos: Dataset[Item], rows: np.ndarray, *, training: bool = False) -> DataLoader:
        processes = self.accelerator.num_processes
        workers = self.options.workers
        batch = min(self.options.batch_size, len(rows)) // processes * processes if training else 2 * self.options.batch_size
        return make_loader(
            photos,
            rows,
            batch_size=batch,
            seed=self.options.seed if training else None,
            workers=(default_workers(processes) if workers is None else workers) if training else 0,
            pin=self.accelerator.device.type == "cuda",
        )

    def _photos(self, labels: NDArray[np.int64] | None = None, *, training: bool = False) -> CachedPhotos:
        blended = self.only_real or (training and self.options.pseudo_fakes != "none")
        return CachedPhotos(
            self.cache.path, self.labels if labels is None else labels, pseudo_fakes=blended, augment=self.options.augment
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

    def cross_fitted(self, members: Sequence[Member]) -> NDArray[np.float32] | None:
        """Raw probabilities of calibration photos that are in folds: each from the members that have not seen it."""
        rows, raw = self.parts.calibrate, np.empty(len(self.parts.calibrate), np.float32)
        for fold, unseeing in (folds := by_fold(members)).items():
            config, model = average(unseeing, mirror=self.options.mirror)
            judge = Judge(self.accelerator, config, self.options.image_spec)
            judge.load(model.state_dict())
            aside = self.divided(fold).calibrate
            raw[np.searchsorted(rows, aside)] = self._raw(judge, aside)
        return raw if folds else None

    def _raw(self, judge: Judge, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return sigmoid(judge.logits(self.accelerator.prepare(self._loader(self._photos(), rows))))

    def finish(
        self,
        judge: Judge,
        state: State,
        final: dict[str, Tensor] | None = None,
        unseen: NDArray[np.float32] | None = None,
    ) -> dict[str, Any]:
        """Calibrate and evaluate the epoch that was kept, and write everything that a run folder holds.

        unseen: raw probabilities of the calibration photos, where the network has seen them and others are to be used.
        """
        parts, out = self.parts, self.options.out
        judge.load(state.best_weights)
        raw = {"validation": self._raw(judge, parts.validation)}
        if len(parts.calibrate):
            raw["calibrate"] = self._raw(judge, parts.calibrate) if unseen is None else unseen
        metrics: dict[str, Any] = {}
        if self.accelerator.is_main_process:
            for name, scores in raw.items():
                rows = np.array([i for i, part in enumerate(self.table.parts) if part == name])
                self.table = self.table.with_raw(rows, scores)
            held_out, validation = self.table.of("calibrate"), self.table.of("validation")
            calibration = fit_calibration(self.options.calibration, held_out.raw, held_out.labels)
            calibration.save(out)
            self.table.save(out, calibration.curve)
            reported = run_metrics(
                validation, calibration, held_out, target_fpr=self.options.target_fpr, seed=self.options.seed
            )
            metrics = self._metrics(judge, state, reported)
            mistakes = self._mistakes(judge, validation, calibration, metrics["threshold"])
            metrics["mistakes"] = [mistake.to_dict() for mistake in mistakes]
            self._save("best_model.pth", state.best_weights, {**state.best, "validation": metrics["validation"]})
            if final is not None:
                self._save("final_model.pth", final, state.history[-1])
            (out / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False), encoding="utf-8")
            write_report(
                out / "report", metrics, validation.labels, validation.raw, calibration.curve(validation.raw), mistakes
            )
            write_card(out, metrics)
        self.accelerator.wait_for_everyone()
        return metrics

    def _mistakes(self, judge: Judge, photos: ScoreTable, fitted: Calibration, threshold: float) -> list[Mistake]:
        """The worst mistakes on the validation photos, which are the rows of that part in order."""
        calibrated = fitted.curve(photos.raw)
        rows = worst(photos.labels, photos.raw, calibrated, threshold)
        shown = self._photos()
        pixels = np.array([shown.pixels(int(row)) for row in self.parts.validation[rows]])

        def heatmaps(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            with torch.inference_mode():
                x = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.accelerator.device)
                return judge.model.logit_and_map(normalise(x, self.options.image_spec))[1].float().cpu().numpy()

        return illustrate(rows, photos.names, photos.labels, photos.raw, calibrated, pixels, heatmaps)

    def _metrics(self, judge: Judge, state: State, reported: dict[str, Any]) -> dict[str, Any]:
        crossed = bool(self.options.folds and self.options.members)
        divided = counts(self.parts, self.labels)
        trained = {"best_epoch": state.best["epoch"], "history": state.history} if state.history else {}
        rates = [epoch["images_per_second"] for epoch in state.speed]
        return {
            **reported,
            **trained,
            "counts": divided | ({"fit": divided["calibrate"]} if crossed else {}),
            "unreadable": self.cache.unreadable,
            "audit": self.audit.summary(),
            "split": SPLIT_NOTE + CROSS_FITTED_NOTE * crossed,
            **({"pseudo_fakes": NOTE["alone" if self.only_real else "added"]} if self.options.pseudo_fakes != "none" else {}),
            "faults": {**faults, **state.applied} if (faults := faults_in(self.options.recorded())) else None,
            "fingerprint": self.fingerprint,
            "arguments": self.options.recorded(),
            "parameters": sum(p.numel() for p in judge.model.parameters()),
            "libraries": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
            "speed": {
                "device": str(self.accelerator.device),
                "precision": self.accelerator.mixed_precision,
                "processes": self.accelerator.num_processes,
                "threads": torch.get_num_threads(),
                "epochs": state.speed,
                **({"images_per_second": float(np.median(rates))} if rates else {}),
            },
        }
