"""What can run the network - PyTorch, ONNX Runtime, TorchScript - behind one call, at any batch size and thread count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from detector.cpus import available_cpus
from detector.scorer import open_session, run_graph
from export.graph import ScoringGraph
from export.torchscript import load_torchscript

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
FIELDS = ("logit", "raw_prob", "heatmap")


@dataclass(frozen=True)
class Answers:
    """One runner's answers for N images: logit and raw_prob float32[N], heatmap float32[N, h, w]."""

    logit: Floats
    raw_prob: Floats
    heatmap: Floats


@dataclass(frozen=True)
class Runner:
    """A way to run the network. `open(threads)` gives a function from uint8[N, H, W, 3] to the answers for that batch."""

    name: str
    open: Callable[[int], Callable[[Pixels], Answers]]

    def answers(self, images: Pixels, batch: int, threads: int) -> Answers:
        """Score all images, `batch` at a time (the last may be smaller), with `threads` threads."""
        with _torch_threads(threads):
            score = self.open(threads)
            parts = [score(images[i : i + batch]) for i in range(0, len(images), batch)]
        return Answers(*(np.concatenate([getattr(p, field) for p in parts]) for field in FIELDS))


def checkpoint_runner(graph: ScoringGraph) -> Runner:
    """The trained network, in PyTorch."""

    def score(images: Pixels) -> Answers:
        with torch.no_grad():
            return Answers(*(v.numpy() for v in graph(torch.from_numpy(images))))

    return Runner("checkpoint", lambda threads: score)


def onnx_runner(path: Path) -> Runner:
    """`model.onnx` in ONNX Runtime."""

    def start(threads: int) -> Callable[[Pixels], Answers]:
        session = open_session(path, threads=threads)
        return lambda images: Answers(*run_graph(session, images, FIELDS))

    return Runner("onnx", start)


def torchscript_runner(path: Path) -> Runner:
    """`model.pt` in TorchScript, with the sigmoid that its handler applies."""

    def start(threads: int) -> Callable[[Pixels], Answers]:
        module = load_torchscript(path)

        def score(images: Pixels) -> Answers:
            with torch.no_grad():
                logit, heatmap = module(torch.from_numpy(images))
                return Answers(logit.numpy(), torch.sigmoid(logit).numpy(), heatmap.numpy())

        return score

    return Runner("torchscript", start)


def thread_counts() -> list[int]:
    """One thread, and as many as this process may use."""
    return sorted({1, available_cpus()})


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
