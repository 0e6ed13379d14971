"""The training loop: epochs of optimiser steps, each judged on the tuning photos, each one resumable."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import broadcast
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tqdm import tqdm

from training.data.loader import normalise
from training.data.mixup import mixed
from training.errors import Diverged
from training.evaluation.metrics import roc_auc
from training.faults.injection import Fault
from training.fit.evaluator import Evaluator
from training.fit.schedule import make_schedule
from training.models.networks import DetectorNet, PooledNet

SHOW_EVERY = 8  # steps between updates of the progress bar: reading the loss makes the processor wait for a GPU


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; each is the option of that name. head_alone: the loaders give features of a frozen backbone.

    tracked: whether epochs are logged to accelerate's trackers.
    """

    epochs: int
    lr: float
    weight_decay: float
    clip: float
    schedule: str
    patience: int
    lr_patience: int
    mixup: float
    seed: int
    head_alone: bool
    tracked: bool


@dataclass
class State:
    """How far a run is. history: one row of plain numbers per finished epoch. best: the row of the epoch that
    the schedule keeps; best_weights: the network then; stale: epochs since. speed: seconds and photos per second of each
    epoch. applied: how often an injected fault struck."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    stale: int = 0
    speed: list[dict[str, float]] = field(default_factory=list)
    applied: dict[str, int] = field(default_factory=dict)


class Trainer:
    """Trains one network, or its head alone, for which the loaders give features.

    Every epoch draws its randomness from (seed, epoch, process), so a run that was stopped after any epoch goes on exactly as
    it would have.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        network: DetectorNet,
        evaluator: Evaluator,
        fit: DataLoader,
        tune: DataLoader | None,
        tune_labels: NDArray[np.int64],
        recipe: Recipe,
        fault: Fault,
        title: str = "",
    ) -> None:
        """fit: batches to learn from. tune: those of an evaluator's loader, whose labels are `tune_labels`; None for none.

        title: what is trained, shown before the number of the epoch.
        """
        self.accelerator = accelerator
        self.evaluator = evaluator
        self.recipe = recipe
        self.title = title
        self.fault = fault
        self.tune = tune
        self.tune_labels = tune_labels
        self.network = network.to(memory_format=torch.channels_last).to(accelerator.device)
        learned = cast(PooledNet, network).head if recipe.head_alone else network
        optimizer = AdamW(learned.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
        self.schedule = make_schedule(
            optimizer,
            recipe.schedule,
            steps=recipe.epochs * len(fit),
            patience=recipe.patience,
            lr_patience=recipe.lr_patience,
        )
        self.model, self.optimizer, self.fit = accelerator.prepare(learned, optimizer, fit)
        self.state = State(applied=fault.applied)

    def run(self, after_epoch: Callable[[], None]) -> State:
        """Train to the last epoch, or until the schedule expects no better one; `after_epoch` is called after each."""
        if self.recipe.tracked:
            self.accelerator.init_trackers("tensorboard")
        while len(self.state.history) < self.recipe.epochs and not self.schedule.gives_up(self.state.stale):
            self.epoch(len(self.state.history) + 1)
            after_epoch()
        if len(self.state.history) < self.recipe.epochs and self.accelerator.is_main_process:
            done, best = len(self.state.history), self.state.best["epoch"]
            print(
                f"{self.title}stopped after epoch {done} of {self.recipe.epochs}: none was better than epoch {best}, which is "
                f"kept, in the {self.state.stale} after it (--patience)",
                file=sys.stderr,
            )
        return self.state

    def weights(self) -> dict[str, Tensor]:
        """A copy of the network's tensors on the CPU; the first process's where there are several."""
        tensors = self.network.state_dict()
        if self.accelerator.num_processes > 1:  # batch norm's running means differ between processes
            tensors = broadcast({k: v.clone() for k, v in tensors.items()})
        return {k: v.detach().to("cpu", copy=True) for k, v in tensors.items()}

    def epoch(self, number: int) -> None:
        """Train one epoch, counted from 1, and score the tuning photos."""
        start = time.perf_counter()
        torch.manual_seed(_epoch_seed(self.recipe.seed, number, self.accelerator.process_index))
        bar = tqdm(
            total=len(self.fit),
            desc=f"{self.title}epoch {number}/{self.recipe.epochs}",
            unit="batch",
            disable=not self.accelerator.is_main_process,
        )
        with bar:
            loss, auc, waited = self._steps(number, bar)
            seconds = time.perf_counter() - start
            weights = self.weights()
            rate = float(self.optimizer.param_groups[0]["lr"])
            row: dict[str, Any] = {"epoch": number, "lr": rate, "train_loss": loss, "train_auc": auc}
            said = f"loss {loss:.4f}"
            if self.tune is not None:
                self.evaluator.load(weights)
                logits = self.evaluator.logits(self.tune, pooled=self.recipe.head_alone)
                row |= {"tune_loss": _loss(logits, self.tune_labels), "tune_auc": _auc(logits, self.tune_labels)}
                said += f", tune loss {row['tune_loss']:.4f}, tune AUC {row['tune_auc']:.4f}"
            bar.set_postfix_str(said)
        seen = len(self.fit) * self.fit.total_batch_size
        self.state.speed.append(
            {
                "seconds": time.perf_counter() - start,
                "fitting_seconds": seconds,
                "images_per_second": seen / seconds,
                "waiting_for_photos": waited / seconds,
            }
        )
        self._record(row, weights)
        if self.recipe.tracked:
            shown = {k: v for k, v in row.items() if k != "epoch"}
            self.accelerator.log({**shown, "images_per_second": self.state.speed[-1]["images_per_second"]}, step=number)

    def _steps(self, number: int, bar: tqdm) -> tuple[float, float, float]:
        """One pass over the fitting photos: mean loss, AUC (under augmentation and dropout), seconds spent waiting."""
        self.fault.before_epoch(self.accelerator.unwrap_model(self.model), number)
        self.model.train()
        self.fit.set_epoch(number)
        losses, scores, truths = [], [], []
        waited, asked = 0.0, time.perf_counter()
        for step, (images, labels, _) in enumerate(self.fit):
            waited += time.perf_counter() - asked
            x = images if self.recipe.head_alone else normalise(self.fault.inputs(images), self.evaluator.spec)
            wanted = labels
            if self.recipe.mixup:
                x, wanted = mixed(x, labels, self.recipe.mixup)
            logits = self.model(x).float().flatten()  # of a head alone: [N, 1]
            loss = self.fault.loss(logits, wanted)
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
            if not self.fault.skips(number, step, len(self.fit)):
                self.optimizer.step()
            self.optimizer.zero_grad()
            self.schedule.after_step()
            losses.append(loss.detach())
            scores.append(logits.detach())
            truths.append(labels)
            bar.update()
            if step % SHOW_EVERY == 0:
                bar.set_postfix_str(f"loss {torch.stack(losses[-SHOW_EVERY:]).mean():.4f}")
            asked = time.perf_counter()
        gathered = self.accelerator.gather((torch.stack(losses), torch.cat(scores), torch.cat(truths)))
        loss_mean, logits, labels = (value.cpu() for value in gathered)
        if not torch.isfinite(logits).all():
            raise Diverged(f"the loss is not a number in epoch {number}; use a lower --lr, or train without --amp")
        return float(loss_mean.mean()), _auc(logits.numpy(), labels.numpy().astype(np.int64)), waited

    def _record(self, row: dict[str, Any], weights: dict[str, Tensor]) -> None:
        state = self.state
        state.history.append(row)
        self.schedule.after_epoch(row.get("tune_auc", math.nan))
        if self.schedule.keeps(row, state.best):
            state.best, state.best_weights, state.stale = row, weights, 0
        else:
            state.stale += 1

    def resume_values(self) -> dict[str, Any]:
        """What a checkpoint needs besides the weights for the run to go on; tensors and plain values only."""
        scaler = self.accelerator.scaler
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            **vars(self.state),
        }

    def restore(self, weights: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from `resume_values` and the weights they were saved with."""
        values = dict(values)
        self.network.load_state_dict(weights)
        self.optimizer.load_state_dict(values.pop("optimizer"))
        self.schedule.load_state_dict(values.pop("schedule"))
        scaler = values.pop("scaler")
        if scaler and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        self.state = State(**values)
        self.fault.applied = self.state.applied


def _loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    value = float(F.binary_cross_entropy_with_logits(torch.from_numpy(logits), torch.from_numpy(labels).float()))
    if not math.isfinite(value):
        raise Diverged("the loss on the tuning photos is not a number; use a lower --lr, or train without --amp")
    return value


def _auc(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(roc_auc(labels, logits.astype(np.float64), np.ones((1, len(labels))))[0])


def _epoch_seed(seed: int, epoch: int, process: int) -> int:
    return int(np.random.default_rng([seed, epoch, process]).integers(2**62))
