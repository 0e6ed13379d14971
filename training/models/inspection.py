"""What a checkpoint is, told without running code from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detector.files import read_json
from detector.model_warnings import model_warnings
from detector.verdict import DEFAULT_THRESHOLD, Band
from training.models.checkpoint import BEST, Checkpoint, load_checkpoint


def describe(path: Path) -> dict[str, Any]:
    """Model, image spec, arguments, metrics and size of a checkpoint as JSON values.

    Tensors and plain values only are read (`weights_only=True`). Raises `FileError` for what is no checkpoint of ours.
    """
    checkpoint = load_checkpoint(path)
    weights = checkpoint.weights.values()
    return {
        "file": path.name,
        "model": checkpoint.model_config.to_dict(),
        "image_spec": checkpoint.image_spec.to_dict(),
        "tensors": len(weights),
        # Running means and variances travel with the weights, and are counted here too.
        "values": sum(tensor.numel() for tensor in weights),
        "bytes": path.stat().st_size,
        "arguments": checkpoint.arguments,
        "faults": checkpoint.faults,
        "metrics": checkpoint.metrics,
        "warnings": _warnings(path, checkpoint),
        "fingerprint": checkpoint.fingerprint,
        "resumable": bool(checkpoint.resume),
    }


def _warnings(path: Path, checkpoint: Checkpoint) -> list[dict[str, str]]:
    """Those of its run as it is calibrated now, where that lies beside the best checkpoint; else by what it records itself."""
    beside = path.with_name("metrics.json")
    told = read_json(beside) if path.name == BEST and beside.is_file() else checkpoint.metrics
    validation = told.get("validation", {})
    threshold = validation.get("threshold", DEFAULT_THRESHOLD)
    return model_warnings(validation, threshold, Band.from_list(told.get("uncertain")))
