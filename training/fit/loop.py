"""The training loop: epochs of optimiser steps, each judged on the tuning photos, each one resumable."""

from __future__ import annotations

import math
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

from detector.errors import UnmaskError
from detector.spec import ImageSpec
from training.data.loader import normalise
from training.data.mixup import mixed
from training.evaluation.metrics import roc_auc
from training.faults.injection import Fault
from training.fit.schedule import make_schedule
from training.models.build import ModelConfig, build_model
from training.models.networks import DetectorNet, PooledNet
from training.options import FitOptions

SHOW_EVERY = 8  # steps between updates of the progress bar: reading the loss makes the processor wait for a GPU


class Diverged(UnmaskError):
    """The loss is no longer a number."""

    code = "diverged"


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
        model: DetectorNet,
        config: ModelConfig,
        fit: DataLoader,
        tune: DataLoader,
        tune_labels: NDArray[np.int64],
        options: FitOptions,
        fault: Fault,
    ) -> None:
        self.accelerator = accelerator
        self.options = options
        self.fault = fault
        self.spec = options.image_spec
        self.tune_labels = tune_labels
        self.network = model.to(memory_format=torch.channels_last).to(accelerator.device)
        learned = cast(PooledNet, model).head if options.freeze_backbone else model
        optimizer = AdamW(learned.parameters(), lr=options.lr, weight_decay=options.weight_decay, fused=True)
        self.schedule = make_schedule(optimizer, options, steps=options.epochs * len(fit))
        self.model, self.optimizer, self.fit, self.tune = accelerator.prepare(learned, optimizer, fit, tune)
        self.judge = Judge(accelerator, config, self.spec)
        self.state = State(applied=fault.applied)

    def run(self, after_epoch: Callable[[], None]) -> State:
        """Train to the last epoch, or until the schedule expects no better one; `after_epoch` is called after each."""
        if self.options.tensorboard:
            self.accelerator.init_trackers("tensorboard")
        while len(self.state.history) < self.options.epochs and not self.schedule.gives_up(self.state.stale):
            self._epoch(len(self.state.history) + 1)
            after_epoch()
        return self.state

    def weights(self) -> dict[str, Tensor]:
        """A copy of the network's tensors on the CPU; the first process's where there are several."""
        tensors = self.network.state_dict()
        if self.accelerator.num_processes > 1:  # batch norm's running means differ between processes
            tensors = broadcast({k: v.clone() for k, v in tensors.items()})
        return {k: v.detach().to("cpu", copy=True) for k, v in tensors.items()}

    def _epoch(self, number: int) -> None:
        start = time.perf_counter()
        torch.manual_seed(_epoch_seed(self.options.seed, number, self.accelerator.process_index))
        bar = tqdm(
            total=len(self.fit),
            desc=f"epoch {number}/{self.options.epochs}",
            unit="batch",
            disable=not self.accelerator.is_main_process,
        )
        with bar:
            loss, auc, waited = self._steps(number, bar)
            seconds = time.perf_counter() - start
            weights = self.weights()
            self.judge.load(weights)
            logits = self.judge.logits(self.tune, pooled=self.options.freeze_backbone)
            row = {
                "epoch": number,
                "lr": float(self.optimizer.param_groups[0]["lr"]),
                "train_loss": loss,
                "train_auc": auc,
                "tune_loss": _loss(logits, self.tune_labels),
                "tune_auc": _auc(logits, self.tune_labels),
            }
            bar.set_postfix_str(f"loss {loss:.4f}, tune loss {row['tune_loss']:.4f}, tune AUC {row['tune_auc']:.4f}")
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
        if self.options.tensorboard:
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
            x = images if self.options.freeze_backbone else normalise(self.fault.inputs(images), self.spec)
            wanted = labels
            if self.options.mixup:
                x, wanted = mixed(x, labels, self.options.mixup)
            logits = self.model(x).float().flatten()  # of a head alone: [N, 1]
            loss = self.fault.loss(logits, wanted)
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.options.clip)
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
        self.schedule.after_epoch(row["tune_auc"])
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


class Judge:
    """A second copy of the network that scores in full precision, as it will be served, whatever it is trained in."""

    def __init__(self, accelerator: Accelerator, config: ModelConfig, spec: ImageSpec) -> None:
        self.accelerator = accelerator
        self.spec = spec
        self.model = build_model(config, spec).to(memory_format=torch.channels_last).to(accelerator.device).eval()

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take these weights."""
        self.model.load_state_dict(weights)

    def logits(self, loader: DataLoader, *, pooled: bool = False) -> NDArray[np.float32]:
        """Logits, float32[n], in order of row, of the photos that a prepared loader gives, or their features, once each."""

        def score(images: Tensor) -> Tensor:
            if pooled:
                return cast(PooledNet, self.model).head(images).squeeze(1)
            return self.model(normalise(images, self.spec))

        rows, logits = [], []
        with torch.inference_mode():
            for images, _, row in loader:
                out, where = self.accelerator.gather((score(images), row))
                logits.append(out.cpu().numpy())
                rows.append(where.cpu().numpy())
        # Processes get equally many photos, so some come twice.
        _, first = np.unique(np.concatenate(rows), return_index=True)
        return np.concatenate(logits)[first]


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Raw probabilities as the exported graph computes them, float32."""
    return torch.from_numpy(logits).sigmoid().numpy()


def _loss(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    value = float(F.binary_cross_entropy_with_logits(torch.from_numpy(logits), torch.from_numpy(labels).float()))
    if not math.isfinite(value):
        raise Diverged("the loss on the tuning photos is not a number; use a lower --lr, or train without --amp")
    return value


def _auc(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(roc_auc(labels, logits.astype(np.float64), np.ones((1, len(labels))))[0])


def _epoch_seed(seed: int, epoch: int, process: int) -> int:
    return int(np.random.default_rng([seed, epoch, process]).integers(2**62))
