"""The networks of a run: the one that is kept, and those that score its photos for the calibration, each without a fold.

A curve needs photos that its network has not seen. A part left aside is lost to the network, and a tenth of a small set is too
little for a curve; of folds, each is scored by a network with the same recipe that was fitted on the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from detector.errors import UsageError
from training.data.loader import Item, default_workers, make_loader
from training.data.photos import Parts
from training.evaluation.metrics import roc_auc
from training.faults.injection import Fault
from training.fit.evaluator import Evaluator
from training.fit.loop import Recipe, State, Trainer
from training.fit.prepared import PreparedPhotos
from training.fit.run_folder import FOLDS
from training.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.models.networks import DetectorNet
from training.options import FitOptions

TINY = 1e-6  # of a deviation: a network that says the same of all photos
SETTLED = 2000  # photos that batch norm's statistics are taken from


@dataclass(frozen=True)
class Networks:
    """How the networks of a run are trained: all alike, but for the photos.

    fitted, tuned: the photos, or their features where the backbone stays as it is. started: a network before training. fault:
    what strikes one network. checkpoint: of weights, the metrics of an epoch, and what resuming needs.
    """

    options: FitOptions
    photos: PreparedPhotos
    evaluator: Evaluator
    fitted: Dataset[Item]
    tuned: Dataset[Item]
    started: Callable[[], DetectorNet]
    fault: Callable[[], Fault]
    checkpoint: Callable[[dict[str, Tensor], dict[str, Any], dict[str, Any]], Checkpoint]

    def trainer(self, network: DetectorNet, parts: Parts, fault: Fault, title: str = "") -> Trainer:
        """Of a network on these parts; only the one without a title is tracked."""
        options, accelerator = self.options, self.evaluator.accelerator
        rows, processes = self.photos.fit_rows(parts), accelerator.num_processes
        loader = make_loader(
            self.fitted,
            rows,
            batch_size=min(options.batch_size, len(rows)) // processes * processes,
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
            tracked=options.tensorboard and not title,
        )
        tune = self.evaluator.loader(self.tuned, parts.tune) if len(parts.tune) else None
        labels = self.photos.labels[parts.tune]
        return Trainer(accelerator, network, self.evaluator, loader, tune, labels, recipe, fault, title)

    def save(self, trainer: Trainer, path: Path, resume: dict[str, Any]) -> None:
        """Write the network as it is now, with its last epoch's metrics."""
        now = self.checkpoint(trainer.weights(), trainer.state.history[-1], resume)
        if self.evaluator.accelerator.is_main_process:
            path.parent.mkdir(exist_ok=True)
            save_checkpoint(path, now)

    def train(self, trainer: Trainer, parts: Parts, last: Path, earlier: Checkpoint | None) -> State:
        """Train to the end, from an earlier checkpoint where there is one; each epoch is kept in `last`."""
        if earlier:
            trainer.restore(earlier.weights, earlier.resume)
        state = trainer.run(after_epoch=lambda: self.save(trainer, last, trainer.resume_values()))
        if self.options.crop is not None and self.options.crop < self.options.size:
            drawn = np.random.default_rng(self.options.seed).permutation(parts.fit)[:SETTLED]
            state.best_weights = self.evaluator.settled(state.best_weights, self.evaluator.loader(self.tuned, drawn))
        return state

    def cross_fitted(self, kept: State) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Raw probabilities, float32[n], of the calibration photos, each by a network without its fold, and an account.

        Networks that were tuned stopped at epochs of their own, and are more or less sure by that: where there are tuning
        photos, which none was fitted on, their logits are brought to the mean and the deviation that `kept`'s have there.
        """
        photos = self.photos
        rows, tune, networks = photos.parts.calibrate, photos.parts.tune, []
        logits, labels = np.empty(len(rows), np.float64), photos.labels[rows]
        wanted = self._logits(kept, tune) if len(tune) else None
        for fold in range(1, photos.crossed + 1):
            parts = photos.divided(fold)
            state = self._without(fold, parts)
            at = np.searchsorted(rows, parts.calibrate)
            logits[at] = self._logits(state, parts.calibrate)
            told = {"fold": fold, "epochs": len(state.history), "auc": _auc(labels[at], logits[at])}
            if wanted is not None:
                own = self._logits(state, tune)
                scale = float(wanted.std() / max(own.std(), TINY))
                shift = float(wanted.mean() - scale * own.mean())
                logits[at] = scale * logits[at] + shift
                told |= {"scale": scale, "shift": shift}
            networks.append(told)
        raw = torch.from_numpy(logits.astype(np.float32)).sigmoid().numpy()
        return raw, {"folds": photos.crossed, "auc": _auc(labels, logits), "networks": networks}

    def _logits(self, state: State, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        self.evaluator.load(state.best_weights)
        loader = self.evaluator.loader(self.tuned, rows)
        return self.evaluator.logits(loader, pooled=self.options.freeze_backbone).astype(np.float64)

    def _without(self, fold: int, parts: Parts) -> State:
        self.evaluator.accelerator.free_memory()  # of the network before, which is needed no more
        last = self.options.out / FOLDS / f"{fold}.pth"
        earlier = interrupted(last, self.options.recorded()) if self.options.resume else None
        title = f"fold {fold}/{self.photos.crossed}, "
        return self.train(self.trainer(self.started(), parts, self.fault(), title), parts, last, earlier)


def announce(folds: int, *, head_alone: bool) -> None:
    """Tell the user before it begins how many networks are trained, and what would be less work."""
    said = f"the calibration is cross-fitted: {folds} more {'heads' if head_alone else 'networks'} are trained, each without "
    said += "a fold of the photos"
    if not head_alone:
        said += f"; that takes {folds} times as long as --cross-fit 0, which leaves a tenth of the photos aside instead"
    print(f"note: {said}", file=sys.stderr)


def interrupted(path: Path, arguments: Mapping[str, Any]) -> Checkpoint | None:
    """The last checkpoint at `path`, in a run's folder; None where no epoch was finished.

    Raises `UsageError` when it was trained with other arguments than these; where its photos lay is of no matter, and how many
    folds are cross-fitted follows from the photos where it is not asked for.
    """
    if not path.is_file():
        return None
    checkpoint = load_checkpoint(path)
    free = {"data"} if arguments["cross_fit"] is not None else {"data", "cross_fit"}
    then, now = ({k: v for k, v in values.items() if k not in free} for values in (checkpoint.arguments, arguments))
    differing = [f"{k} was {then.get(k)!r} and is {now.get(k)!r}" for k in sorted({*then, *now}) if then.get(k) != now.get(k)]
    if differing:
        raise UsageError(f"--resume: this is not the run in {path.parent}: {'; '.join(differing)}")
    return checkpoint


def _auc(labels: NDArray[np.int64], logits: NDArray[np.float64]) -> float | None:
    """None where whole groups leave a fold with one class."""
    if len(np.unique(labels)) < 2:
        return None
    return float(roc_auc(labels, logits, np.ones((1, len(labels))))[0])
