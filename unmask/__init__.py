"""Unmask: train, calibrate, export and serve a deepfake-image detector.

The public names are loaded when they are first used: `import unmask` alone costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detector import ImageError, ImageSpec, Manifest, UnmaskError, Verdict, decode_image
    from detector.scorer import Scorer
    from serve.client.client import Client, GrpcClient, RestClient

__version__ = "1.0.0"  # the one place: the package, the command, image tags and manifests take it from here

_PUBLIC = {
    "Client": "serve.client.client",
    "GrpcClient": "serve.client.client",
    "ImageError": "detector",
    "ImageSpec": "detector",
    "Manifest": "detector",
    "RestClient": "serve.client.client",
    "Scorer": "detector.scorer",
    "UnmaskError": "detector",
    "Verdict": "detector",
    "decode_image": "detector",
}
__all__ = [
    "Client",
    "GrpcClient",
    "ImageError",
    "ImageSpec",
    "Manifest",
    "RestClient",
    "Scorer",
    "UnmaskError",
    "Verdict",
    "__version__",
    "decode_image",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
