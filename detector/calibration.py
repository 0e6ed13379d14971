"""The calibration curve: a monotone piecewise-linear map from raw probability to calibrated probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.errors import FileError

Array = NDArray[np.float32]
_MARGIN = 0.01  # ramps are this much gentler than the limit, so that knots rounded to float32 stay within it


@dataclass(frozen=True, eq=False)
class CalibrationCurve:
    """Isotonic calibration (Zadrozny & Elkan, KDD 2002) as the knots of its interpolation.

    x: float32[K], K >= 2, strictly increasing, in [0, 1]: raw probabilities.
    y: float32[K], non-decreasing, in [0, 1]: calibrated probabilities at those knots.

    Raises `FileError` when the knots are not such a curve.
    """

    x: Array
    y: Array

    def __post_init__(self) -> None:
        x, y = (np.ascontiguousarray(v, dtype=np.float32) for v in (self.x, self.y))
        if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
            raise FileError("calibration curve: x and y need the same number of knots, at least two")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise FileError("calibration curve: knots must be finite")
        if (np.diff(x) <= 0).any() or (np.diff(y) < 0).any():
            raise FileError("calibration curve: x must increase strictly and y must not decrease")
        if x[0] < 0 or x[-1] > 1 or y[0] < 0 or y[-1] > 1:
            raise FileError("calibration curve: knots must lie in [0, 1]")
        x.setflags(write=False)
        y.setflags(write=False)
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def __call__(self, raw_prob: ArrayLike) -> Array:
        """Calibrated probabilities, float32 of the input's shape; constant outside the knots, NaN for NaN.

        Linear interpolation in float32 by the same steps as the exported graph: compare, sum, gather, interpolate.
        """
        p = np.clip(np.asarray(raw_prob, dtype=np.float32), self.x[0], self.x[-1])
        i = np.clip(np.searchsorted(self.x, p, side="right") - 1, 0, len(self.x) - 2)  # = sum(p >= x) - 1
        x0, x1, y0, y1 = self.x[i], self.x[i + 1], self.y[i], self.y[i + 1]
        t = (p - x0) / (x1 - x0)
        return np.asarray(y0 + t * (y1 - y0), dtype=np.float32)

    @classmethod
    def identity(cls) -> CalibrationCurve:
        """The curve that changes nothing, for a model without calibration."""
        return cls(np.array([0, 1], np.float32), np.array([0, 1], np.float32))

    @classmethod
    def from_knots(cls, x: Sequence[float] | ArrayLike, y: Sequence[float] | ArrayLike) -> CalibrationCurve:
        """A curve from float64 knots, such as scikit-learn's; knots that are equal in float32 are merged.

        A single knot, which is what data of one value give, becomes a constant curve.
        """
        x32, y64 = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float64)
        keep, inverse = np.unique(x32, return_inverse=True)
        merged = np.bincount(inverse, weights=y64) / np.bincount(inverse)
        if len(keep) == 1:
            keep, merged = np.array([0, 1], np.float32), np.repeat(merged, 2)
        return cls(keep, np.maximum.accumulate(merged.astype(np.float32)))

    @property
    def max_slope(self) -> float:
        """Largest slope between two knots: how far a unit of noise in the raw probability moves the calibrated one."""
        return float(np.max(np.diff(self.y.astype(np.float64)) / np.diff(self.x.astype(np.float64))))

    def with_max_slope(self, limit: float) -> CalibrationCurve:
        """The curve with each step widened into a ramp that is no steeper than `limit`, float32 rounding included.

        Isotonic fits have near-vertical steps, and the raw probability of a photo varies by float noise with the batch that it
        is in. A step of height h becomes a ramp at least h / `limit` wide, half on either side: the mean of the greatest
        Lipschitz minorant and the least majorant (Pasch–Hausdorff envelopes), which is monotone too.
        Raises `ValueError` when `limit` is not a finite number above zero.
        """
        if limit <= 0 or not np.isfinite(limit):
            raise ValueError("limit must be a finite number above zero")
        if self.max_slope <= limit:
            return self
        x, y = self.x.astype(np.float64), self.y.astype(np.float64)
        # Constant stretches on both sides let steps at the first and last knot spread outwards within [0, 1].
        x, y = np.concatenate([[0.0], x, [1.0]]), np.concatenate([y[:1], y, y[-1:]])
        x, first = np.unique(x, return_index=True)
        y = y[first]
        ramp = limit / (1 + _MARGIN)
        low_x, low_y = _minorant(x, y, ramp)
        high_x, high_y = _minorant(1 - x[::-1], 1 - y[::-1], ramp)
        high_x, high_y = 1 - high_x[::-1], 1 - high_y[::-1]
        # Knots are float32 numbers, far enough apart that rounding y (2**-24 for two knots) does not change a slope visibly.
        grid = _spaced(np.union1d(low_x, high_x).astype(np.float32).astype(np.float64), 2.0**-24 / (_MARGIN * ramp))
        values = (np.interp(grid, low_x, low_y) + np.interp(grid, high_x, high_y)) / 2
        return CalibrationCurve.from_knots(grid, np.clip(values, 0, 1))

    def to_dict(self) -> dict[str, list[float]]:
        """Knots as JSON numbers, from which `from_dict` makes the same float32 values."""
        return {"x": [float(v) for v in self.x], "y": [float(v) for v in self.y]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CalibrationCurve:
        """Inverse of `to_dict`. Raises `FileError` for anything else."""
        if "x" not in values or "y" not in values:
            raise FileError("calibration curve: needs the keys x and y")
        try:
            return cls(np.asarray(values["x"], np.float32), np.asarray(values["y"], np.float32))
        except (TypeError, ValueError):
            raise FileError("calibration curve: x and y must be lists of numbers") from None


def _spaced(knots: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Increasing `knots` without those that are closer than `gap` to the one before or to the last."""
    kept = [knots[0]]
    for knot in knots[1:-1]:
        if knot - kept[-1] >= gap and knots[-1] - knot >= gap:
            kept.append(knot)
    return np.asarray([*kept, knots[-1]])


def _minorant(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Knots of the greatest function below the non-decreasing (x, y) that rises no faster than `limit`."""
    knots, values = [x[0]], [y[0]]
    for x1, y1, x0, y0 in zip(x[1:], y[1:], x[:-1], y[:-1], strict=True):
        here, reach = values[-1], values[-1] + limit * (x1 - x0)
        if here < y0 and reach > y1:  # the ramp meets the curve inside this piece
            slope = (y1 - y0) / (x1 - x0)
            meet = x0 + (y0 - here) / (limit - slope)
            knots.append(meet)
            values.append(here + limit * (meet - x0))
        knots.append(x1)
        values.append(min(y1, reach))
    return np.asarray(knots), np.asarray(values)
