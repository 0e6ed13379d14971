"""Faults injected on purpose: what common mistakes in a training pipeline do to a detector. A research tool.

The trainer calls one object at each point where a mistake can creep in; `Fault` itself makes none, and each mode overrides
the one method it is about. Validation, tuning and calibration photos are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.options import STRENGTH


class Fault:
    """No mistake. A subclass counts what it did in `applied`, which goes into the report."""

    def __init__(
        self, labels: NDArray[np.int64], rows: NDArray[np.int64], *, seed: int, strength: float = 0, every: int | None = None
    ) -> None:
        """labels: int64[N], 0 real, 1 fake, of all photos. rows: int64[n], which of them are fitted on.

        strength: of a mode that has one. every: of which steps the gradient is thrown away; None for none.
        """
        self.seed = seed
        self.strength = strength
        self.every = every
        self.rows = rows
        self.clean = labels
        self.applied: dict[str, int] = {}  # the trainer keeps it in its state, so that it outlives an interruption

    def count(self, what: str, n: int = 1) -> None:
        """Add to what `applied` says."""
        self.applied[what] = self.applied.get(what, 0) + n

    def rng(self, *key: int) -> np.random.Generator:
        """Randomness that depends on the run's seed and `key` alone: the same in each process, and after a resume."""
        return np.random.default_rng([self.seed, 0xFA17, *key])

    def labels(self) -> NDArray[np.int64]:
        """The labels, int64[N], that the network is fitted to."""
        return self.clean

    def inputs(self, images: Tensor) -> Tensor:
        """The photos of a step as the network sees them: uint8 or float [N, 3, H, W] on 0–255."""
        return images

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What is minimised: a scalar of logits and labels, float32[N] each."""
        return F.binary_cross_entropy_with_logits(logits, labels)

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        """Whatever happens to the network before an epoch, counted from 1."""

    def skips(self, epoch: int, step: int, steps: int) -> bool:
        """Whether the gradient of this step (counted from 0 in each epoch of `steps`) is thrown away."""
        skipped = self.every is not None and ((epoch - 1) * steps + step + 1) % self.every == 0
        if skipped:
            self.count("skipped_updates")
        return skipped


class LabelNoise(Fault):
    """A share of the fitted photos carries the other class's label, the same photos throughout."""

    def labels(self) -> NDArray[np.int64]:
        n = round(self.strength * len(self.rows))
        flipped = self.rng().choice(self.rows, n, replace=False)
        labels = self.clean.copy()
        labels[flipped] = 1 - labels[flipped]
        self.applied["flipped_labels"] = n
        return labels


class ShuffleLabels(Fault):
    """The fitted photos' labels are dealt out anew, so that they say nothing (Zhang et al., arXiv 1611.03530)."""

    def labels(self) -> NDArray[np.int64]:
        labels = self.clean.copy()
        labels[self.rows] = self.rng().permutation(labels[self.rows])
        self.applied["changed_labels"] = int((labels != self.clean).sum())
        return labels


class InputNoise(Fault):
    """Gaussian noise on the fitted photos, which no photo has when it is scored."""

    def inputs(self, images: Tensor) -> Tensor:
        self.count("noisy_steps")
        noise = torch.randn(images.shape, device=images.device)  # the trainer seeds each epoch and process
        return (images.float() + 255 * self.strength * noise).clamp(0, 255)


class WrongLoss(Fault):
    """Squared error between logit and label: it ranks, but its sigmoid lies between 0.5 and 0.73 and is no probability."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.count("steps_with_it")
        return F.mse_loss(logits, labels)


class RandomWeightReset(Fault):
    """One convolution or linear layer, drawn anew, starts again from random weights before each epoch but the first."""

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        if epoch == 1:
            return
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and isinstance(m.weight, nn.Parameter)]
        rng = self.rng(epoch)
        layer = layers[int(rng.integers(len(layers)))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            fresh = torch.empty(layer.weight.shape)  # drawn on the CPU: the same on every device
            nn.init.kaiming_uniform_(fresh, a=5**0.5)  # what torch's layers start from
        with torch.no_grad():
            layer.weight.copy_(fresh)
            if layer.bias is not None:
                layer.bias.zero_()
        self.count("reset_layers")


MODES: dict[str, type[Fault]] = {
    "label_noise": LabelNoise,
    "input_noise": InputNoise,
    "shuffle_labels": ShuffleLabels,
    "wrong_loss": WrongLoss,
    "random_weight_reset": RandomWeightReset,
}


def make_fault(faults: Mapping[str, Any], labels: NDArray[np.int64], rows: NDArray[np.int64], *, seed: int) -> Fault:
    """The fault that `training.options.faults_in` found in a run's arguments, or the one that does nothing."""
    mode = faults.get("faulty_mode")
    kind = MODES[mode] if mode else Fault
    strength = faults.get(STRENGTH.get(str(mode), ""), 0)
    return kind(labels, rows, seed=seed, strength=strength, every=faults.get("zero_grad_every_n"))
