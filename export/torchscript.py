"""TorchScript: the scoring graph traced and frozen, stopping at logit and heatmap."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from detector.spec import ImageSpec
from export.graph import LogitAndMap, ScoringGraph, example_images


def save_torchscript(graph: ScoringGraph, spec: ImageSpec, path: Path) -> None:
    """Trace, freeze and write the graph: uint8[N, H, W, 3] to (logit float32[N], heatmap float32[N, h, w])."""
    with warnings.catch_warnings(), torch.no_grad():
        # torch 2.15 calls torch.jit deprecated; TorchServe's TorchScript archives know nothing else. Frozen only: what
        # optimize_for_inference returns can't be loaded again, and ran 1.5 to 4 times slower (torch 2.15, one CPU thread).
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(LogitAndMap(graph).eval(), example_images(spec), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.freeze(traced).save(str(path))


def load_torchscript(path: Path) -> torch.jit.ScriptModule:
    """The written module, on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    return module
