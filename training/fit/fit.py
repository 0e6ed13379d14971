"""Fit: a folder of labelled photos in, a calibrated checkpoint and an honest report out."""

from __future__ import annotations

from typing import Any

from training.fit.assemble import assemble_ensemble
from training.fit.device import make_accelerator
from training.fit.train_network import train_network
from training.options import FitOptions


def fit(options: FitOptions) -> dict[str, Any]:
    """Train a network, or assemble one from finished runs, and publish the run; returns what `metrics.json` holds.

    Where `accelerate` launched several processes, all but the first return {}.
    Raises `UsageError` or another `UnmaskError` for whatever the caller can mend.
    """
    accelerator = make_accelerator(
        options.device, options.amp, batch_size=options.batch_size, log_dir=options.out if options.tensorboard else None
    )
    metrics = assemble_ensemble(options, accelerator) if options.members else train_network(options, accelerator)
    accelerator.end_training()  # closes TensorBoard's log, and leaves the other processes
    return metrics
