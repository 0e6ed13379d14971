"""What a checkpoint is, told without running code from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.models.checkpoint import load_checkpoint


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
        "fingerprint": checkpoint.fingerprint,
        "resumable": bool(checkpoint.resume),
    }
