"""Checkpoint in; ONNX, TorchScript and their TorchServe archives out, proven equal to the checkpoint."""

from export.artifacts import export_run
from export.errors import ArchiveError, ParityError, PrecisionError
from export.verify import verify_artifacts

__all__ = ["ArchiveError", "ParityError", "PrecisionError", "export_run", "verify_artifacts"]
