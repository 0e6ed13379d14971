"""Which layers keep float32: those whose rounding moves the logit most, and those that fewer bits make slower."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from tqdm import tqdm

from detector.scorer import open_session, run_graph
from export.reduced.layers import Layers, find_layers, first_layers
from export.runners import Floats, Pixels

GAIN = 1.03  # times as fast that float32 must make the whole graph for a layer to keep it for speed alone
_ALONE = 32  # photos on which each layer is judged alone
_TIMED, _ROUNDS = 4, 9
_BATCH = 16
Reduce = Callable[[Collection[str]], onnx.ModelProto]  # names of nodes in, a model with those in fewer bits out


@dataclass(frozen=True)
class Choice:
    """Layers by the name of their convolution, in the order of the graph, and what was measured on the way.

    error: root mean square of what the logit moved by, in standard deviations of the float32 logit between photos; with
    every layer reduced, and with the chosen ones.
    """

    reduced: tuple[str, ...]
    kept_for_accuracy: tuple[str, ...]
    kept_for_speed: tuple[str, ...]
    error_of_all: float
    error: float


class Search:
    """Finds the layers of `model` that `reduce` may change while the logits of `photos` stay within `limit`."""

    def __init__(self, model: onnx.ModelProto, reduce: Reduce, photos: Pixels, limit: float) -> None:
        self._model, self._reduce, self._photos, self._limit = model, reduce, photos, limit
        self._layers: Layers = find_layers(model)
        self._logits = logits(model, photos)

    def run(self, *, timed: bool) -> Choice:
        """Keep for speed what the clock says (where `timed`), then for accuracy as few layers as reach the limit.

        The layers are ranked by the error of each one alone, since the errors of rounding many layers add up as independent
        ones do (Pandey et al., arXiv 2302.05397), and the shortest head of that ranking that will do is found by bisection.
        """
        everything = list(self._layers)
        error_of_all = self._error(everything)
        slow = self._slow(everything) if timed else []
        left = [name for name in everything if name not in slow]
        error = self._error(left) if slow else error_of_all
        worst: list[str] = []
        if not error <= self._limit:
            alone = {name: self._error([name], _ALONE) for name in tqdm(left, desc="layers alone", unit="layer", leave=False)}
            ranked = sorted(left, key=lambda name: -alone[name] if math.isfinite(alone[name]) else -math.inf)
            count, error = self._fewest(ranked)
            worst = ranked[:count]
        reduced = tuple(name for name in left if name not in worst)
        return Choice(reduced, tuple(n for n in left if n in worst), tuple(slow), error_of_all, error)

    def build(self, layers: Collection[str]) -> onnx.ModelProto:
        """The model with these layers reduced."""
        return self._reduce([node for name in self._layers if name in layers for node in self._layers[name]])

    def _error(self, layers: Collection[str], count: int | None = None) -> float:
        found = logits(self.build(layers), self._photos[:count])
        return spread(found, self._logits[:count], float(self._logits.std()))

    def _fewest(self, ranked: list[str]) -> tuple[int, float]:
        """How many from the head of the ranking must stay float32, and the error then."""
        low, high, error = 0, len(ranked), 0.0  # low is too few, high is enough
        with tqdm(total=math.ceil(math.log2(max(high, 2))), desc="layers together", unit="try", leave=False) as tries:
            while high - low > 1:
                middle = (low + high) // 2
                found = self._error(ranked[middle:])
                if found <= self._limit:
                    high, error = middle, found
                else:
                    low = middle
                tries.update()
        return high, error

    def _slow(self, layers: list[str]) -> list[str]:
        """Layers at the entrance of the graph that make it faster as float32: fewer bits cost a conversion there.

        Only where float32 comes in, one after the other: further in, a float32 layer costs two conversions more.
        """
        slow: list[str] = []
        refused: set[str] = set()
        now = self.build(layers)
        while tried := [n for n in first_layers(self._model, self._layers, set(layers) - set(slow)) if n not in refused]:
            other = self.build([name for name in layers if name not in slow and name != tried[0]])
            if speed_up(now, other, self._photos[:_TIMED]) > GAIN:
                slow.append(tried[0])
                now = other
            else:
                refused.add(tried[0])
        return slow


def logits(model: onnx.ModelProto | Path, photos: Pixels) -> Floats:
    """The logit of each photo, float32[N], on the CPU."""
    session = open_session(model if isinstance(model, Path) else model.SerializeToString())
    parts = [run_graph(session, photos[i : i + _BATCH], ["logit"])[0] for i in range(0, len(photos), _BATCH)]
    return np.concatenate(parts)


def spread(found: Floats, expected: Floats, scale: float) -> float:
    """Root mean square difference in units of `scale`; infinite when a logit is no number."""
    error = float(np.sqrt(np.mean((found.astype(np.float64) - expected) ** 2)))
    return error / max(scale, 1e-12) if math.isfinite(error) else math.inf


def finite(value: float) -> float | None:
    """The value, or None for infinity and NaN, which JSON can't hold."""
    return value if math.isfinite(value) else None


def speed_up(model: onnx.ModelProto, other: onnx.ModelProto, photos: Pixels) -> float:
    """How many times as fast `other` is, on one thread: the median over pairs of CPU times, which other work hardly moves."""
    sessions = [open_session(m.SerializeToString(), threads=1) for m in (model, other)]
    ratios = []
    for round_ in range(_ROUNDS + 1):
        times = []
        for session in sessions:
            start = time.thread_time()
            run_graph(session, photos, ["logit"])
            times.append(time.thread_time() - start)
        if round_:  # the first one allocates
            ratios.append(times[0] / max(times[1], 1e-9))
    return float(np.median(ratios))
