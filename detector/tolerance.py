"""When two runtimes agree: the one rule that the export, the benchmarks and the tests hold float32 answers to.

Runtimes, kinds of CPU, batch sizes and thread counts add the terms of a float32 sum in different orders, so the same network
gives slightly different answers. The rule allows for that, in proportion to the size of the numbers, and for nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Tolerance:
    """Two answers agree when `|found - reference| <= atol + rtol * max|reference|` for each element.

    The error of a float32 sum grows with its terms, not with the sum (Higham, Accuracy and Stability of Numerical Algorithms,
    section 4.2): where a network gives logits of ±160, the one that comes out near zero is as uncertain as the others.
    So the reference's largest element counts, of the whole array or over `axes`. nan: whether NaN agrees with NaN.
    """

    atol: float
    rtol: float = 0.0
    axes: tuple[int, ...] | None = None
    nan: bool = False

    def to_dict(self) -> dict[str, float]:
        """atol and rtol, as the manifest has them."""
        return {"atol": self.atol, "rtol": self.rtol}


# Measured over six architectures with logits up to ±170, four of them also without torch's vector instructions
# (ATEN_CPU_CAPABILITY=default): the checkpoint, ONNX and TorchScript differ by at most 1.6e-5 of the largest logit and 6.4e-5
# of a map's largest value. Three times as much is allowed for.
LOGIT = Tolerance(atol=1e-4, rtol=5e-5)
HEATMAP = Tolerance(atol=1e-6, rtol=2e-4, axes=(-2, -1))  # each photo's map, float32[..., h, w], by its own scale
HEATMAP_IN_JSON = Tolerance(atol=1e-6, rtol=1e-3, axes=(-2, -1))  # where it is printed to four digits
PROBABILITY = Tolerance(atol=1e-3)  # one photo, one answer: the export bounds the calibration curve's slope for it
CURVE = Tolerance(atol=1e-6, nan=True)  # calibrated probabilities for the same raw ones

# By the name of a graph's output or a verdict's key.
TOLERANCES = {
    "logit": LOGIT,
    "raw_prob": PROBABILITY,
    "calibrated_prob": PROBABILITY,
    "calibrated": PROBABILITY,
    "confidence": PROBABILITY,
    "heatmap": HEATMAP,
}


@dataclass(frozen=True)
class Difference:
    """The element of an answer that uses most of its bound.

    fraction: `difference` over `bound`; above 1, and infinite where one is not a number, the answers do not agree.
    """

    index: tuple[int, ...]
    found: float
    reference: float
    difference: float
    bound: float
    fraction: float

    @property
    def agrees(self) -> bool:
        """Whether every element is within its bound."""
        return self.fraction <= 1

    def __str__(self) -> str:
        where = f" at {list(self.index)}" if self.index else ""
        return f"{self.found:.7g} against {self.reference:.7g}{where}, {self.difference:.3g} apart (at most {self.bound:.3g})"

    def to_dict(self) -> dict[str, Any]:
        """What a manifest says of it; None stands for what is not a finite number, which JSON can't hold."""
        values = {name: getattr(self, name) for name in ("difference", "bound", "fraction")}
        return {name: value if math.isfinite(value) else None for name, value in values.items()}


def compare(found: ArrayLike, reference: ArrayLike, tolerance: Tolerance) -> Difference:
    """The worst element of `found` beside `reference`, arrays or numbers of one shape.

    Raises `ValueError` when the shapes differ or there is no element.
    """
    one, other = np.asarray(found, np.float64), np.asarray(reference, np.float64)
    if one.shape != other.shape or not one.size:
        raise ValueError(f"shapes {one.shape} and {other.shape} can't be compared element by element")
    size = np.abs(np.where(np.isfinite(other), other, 0))
    bound = np.broadcast_to(tolerance.atol + tolerance.rtol * size.max(axis=tolerance.axes, keepdims=True), one.shape)
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    if tolerance.nan:
        apart = np.where(np.isnan(one) & np.isnan(other), 0, apart)
    fraction = np.where(np.isnan(apart), np.inf, apart / bound)
    at = np.unravel_index(int(np.argmax(fraction)), one.shape)
    index = tuple(int(i) for i in at)
    return Difference(index, *(float(values[at]) for values in (one, other, apart, bound, fraction)))


def disagreement(found: ArrayLike, reference: ArrayLike, tolerance: Tolerance) -> str:
    """The worst element in words where two answers do not agree; "" where they do. Raises as `compare` does."""
    worst = compare(found, reference, tolerance)
    return "" if worst.agrees else str(worst)
