"""How the learning rate moves: lowered when tuning stalls, or along a cosine fixed beforehand."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

PLATEAU_FACTOR = 0.25
WARM_UP = 0.1  # part of a cosine schedule's steps in which the rate climbs from nothing


class Plateau:
    """The rate is divided by four when the tuning AUC has not grown for `lr_patience` epochs; after `patience` it is over."""

    def __init__(self, optimizer: Optimizer, *, patience: int, lr_patience: int) -> None:
        self.patience = patience
        self.scheduler = ReduceLROnPlateau(optimizer, mode="max", threshold=0, factor=PLATEAU_FACTOR, patience=lr_patience)

    def after_step(self) -> None:
        """Nothing happens within an epoch."""

    def after_epoch(self, tune_auc: float) -> None:
        """Take the tuning AUC of the epoch that ended."""
        self.scheduler.step(tune_auc)

    def keeps(self, row: dict[str, Any], best: dict[str, Any]) -> bool:
        """Whether an epoch is better than the best so far: it ranks better, which calibration can't mend, or has less loss."""
        return not best or _rank(row) > _rank(best)

    def gives_up(self, stale: int) -> bool:
        """Whether training ends after so many epochs without a better one."""
        return stale >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What `--resume` needs."""
        return self.scheduler.state_dict()

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.scheduler.load_state_dict(values)


class Cosine:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter, arXiv 1608.03983, without restarts).

    The last epochs, at small rates, are the best ones, so it is trained to the end and the end is kept: that an earlier one
    ranked the few tuning photos better is luck.
    """

    def __init__(self, optimizer: Optimizer, steps: int) -> None:
        warm = max(1, round(WARM_UP * steps))

        def share(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2

        self.scheduler = LambdaLR(optimizer, share)

    def after_step(self) -> None:
        """Move along by one step."""
        self.scheduler.step()

    def after_epoch(self, tune_auc: float) -> None:
        """The course is fixed: how the epoch went is of no matter."""

    def keeps(self, row: dict[str, Any], best: dict[str, Any]) -> bool:
        """Always: the last epoch is the one to have."""
        return True

    def gives_up(self, stale: int) -> bool:
        """Never."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """What `--resume` needs; the course itself is made anew from the options."""
        return {"last_epoch": self.scheduler.last_epoch}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Inverse of `state_dict`; the optimiser brings its own learning rate back."""
        self.scheduler.last_epoch = values["last_epoch"]


def make_schedule(optimizer: Optimizer, name: str, *, steps: int, patience: int, lr_patience: int) -> Plateau | Cosine:
    """The schedule of that name; `cosine` runs over `steps` optimiser steps, `plateau` is patient for so many epochs."""
    return Cosine(optimizer, steps) if name == "cosine" else Plateau(optimizer, patience=patience, lr_patience=lr_patience)


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    return row["tune_auc"], -row["tune_loss"]
