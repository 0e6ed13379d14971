"""Checkpoint in; ONNX, TorchScript and their TorchServe archives out, proven equal to the checkpoint."""

from export.artifacts import export_run
from export.errors import ArchiveError, ParityError
from export.verify import verify_artifacts

__all__ = ["ArchiveError", "ParityError", "export_run", "verify_artifacts"]
