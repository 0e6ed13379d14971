"""Checkpoints: everything needed to build, judge and go on with a model, in tensors and plain values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.calibration import CalibrationCurve
from detector.errors import FileError
from detector.files import atomic_write, read_json, shown
from detector.spec import ImageSpec
from training.models.build import ModelConfig, build_model
from training.models.networks import DetectorNet
from training.options import faults_in

FORMAT = 1
BEST = "best_model.pth"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model with what it was trained on and how.

    weights: the network's state dict, float32 on the CPU. arguments: the command's options. metrics: of the epoch it was
    saved in. fingerprint: SHA-256 over the training files' names and contents. resume: optimiser, scheduler and random
    states for going on, only in the checkpoint that `--resume` reads.
    """

    model_config: ModelConfig
    image_spec: ImageSpec
    weights: dict[str, Tensor]
    arguments: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    resume: dict[str, Any] = field(default_factory=dict)

    @property
    def faults(self) -> dict[str, Any]:
        """The faults that were injected on purpose in its training; {} for none."""
        return faults_in(self.arguments)

    def build(self) -> DetectorNet:
        """The network with these weights, in eval mode, on the CPU. Raises `FileError` when they don't fit it."""
        model = build_model(self.model_config, self.image_spec)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise FileError(
                f"the checkpoint's weights do not fit its architecture {self.model_config.name}: {error}"
            ) from None
        return model.eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint whole or not at all. Raises `FileError`."""
    values = {
        "format": FORMAT,
        "model": checkpoint.model_config.to_dict(),
        "image_spec": checkpoint.image_spec.to_dict(),
        "weights": {k: v.detach().cpu() for k, v in checkpoint.weights.items()},
        "arguments": checkpoint.arguments,
        "metrics": checkpoint.metrics,
        "fingerprint": checkpoint.fingerprint,
        "resume": checkpoint.resume,
    }
    with atomic_write(path) as partial:
        torch.save(values, partial)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without running any code from it (`weights_only=True`).

    Raises `FileError` when the file is missing, not a checkpoint, or of another format.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileError(f"{shown(path)}: no such checkpoint; `unmask train` writes one") from None
    except Exception:  # torch raises pickle, zip and runtime errors alike for a file that is no checkpoint
        raise FileError(f"{shown(path)}: is not a checkpoint that loads without running code from it") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise FileError(f"{shown(path)}: is not a checkpoint of this project (format {FORMAT})")
    return Checkpoint(
        model_config=ModelConfig.from_dict(values["model"]),
        image_spec=ImageSpec.from_dict(values["image_spec"]),
        weights=values["weights"],
        arguments=values["arguments"],
        metrics=values["metrics"],
        fingerprint=values["fingerprint"],
        resume=values["resume"],
    )


def load_calibration(checkpoint: Path) -> tuple[str, CalibrationCurve]:
    """Method and curve of the `calibration.json` that was fitted to a checkpoint: the one beside `best_model.pth`.

    Other checkpoints of a run have none, nor has a run without that file: method "none", and the curve that changes nothing.
    Raises `FileError` naming the file when it is not a calibration.
    """
    path = checkpoint.with_name("calibration.json")
    if checkpoint.name != BEST or not path.is_file():
        return "none", CalibrationCurve.identity()
    values = read_json(path)
    try:
        return str(values.get("method", "isotonic")), CalibrationCurve.from_dict(values)
    except FileError as error:
        raise FileError(f"{shown(path)}: {error.message}") from None
