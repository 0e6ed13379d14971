"""Checkpoint in; ONNX, TorchScript and their TorchServe archives out, proven equal to the checkpoint.

The public names are loaded when they are first used, so that `export.checks` refuses a wrong folder before torch is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.artifacts import export_run
    from export.errors import ArchiveError, ParityError, PrecisionError
    from export.verify import verify_artifacts

_PUBLIC = {
    "ArchiveError": "export.errors",
    "ParityError": "export.errors",
    "PrecisionError": "export.errors",
    "export_run": "export.artifacts",
    "verify_artifacts": "export.verify",
}
__all__ = ["ArchiveError", "ParityError", "PrecisionError", "export_run", "verify_artifacts"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'export' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
