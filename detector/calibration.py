"""The calibration curve: a monotone piecewise-linear map from raw probability to calibrated probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from detector.errors import FileError

Array = NDArray[np.float32]
_MARGIN = 0.01  # by how much ramps are gentler than asked, so that float32 knots keep what was asked


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
        """Calibrated probabilities, float32 of the input's shape; constant outside the knots, NaN stays NaN.

        Exact linear interpolation in float32: compare, sum, gather, lerp, as the exported graph does it.
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
        """A curve from float64 knots, such as scikit-learn's; knots that are one number in float32 are merged.

        A single knot (all data on one value) becomes a constant curve.
        """
        x32, y64 = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float64)
        keep, inverse = np.unique(x32, return_inverse=True)
        merged = np.bincount(inverse, weights=y64) / np.bincount(inverse)
        if len(keep) == 1:
            keep, merged = np.array([0, 1], np.float32), np.repeat(merged, 2)
        return cls(keep, np.maximum.accumulate(merged.astype(np.float32)))

    @property
    def max_slope(self) -> float:
        """Steepest rise between two knots: how far one unit of noise in the raw probability can move the answer."""
        return float((np.diff(self.y.astype(np.float64)) / np.diff(self.x.astype(np.float64))).max())

    def with_max_slope(self, limit: float) -> CalibrationCurve:
        """The curve with every step widened into a ramp no steeper than `limit`.

        Isotonic fits have near-vertical steps, and the raw probability of one photo differs by float noise with the batch it
        travels in; a step of height h becomes a ramp h / `limit` wide or wider, half on either side. This is the mean of the
        greatest Lipschitz minorant and the least majorant (Pasch–Hausdorff envelopes), so it is monotone too. The slope of
        the result, float32 rounding included, is at most `limit`.
        """
        if limit <= 0 or not np.isfinite(limit):
            raise ValueError("limit must be a finite number above zero")
        if self.max_slope <= limit:
            return self
        x, y = self.x.astype(np.float64), self.y.astype(np.float64)
        # A constant stretch on either side lets a step at the first or last knot spread outwards too, as far as [0, 1] goes.
        x, y = np.concatenate([[0.0], x, [1.0]]), np.concatenate([y[:1], y, y[-1:]])
        x, first = np.unique(x, return_index=True)
        y = y[first]
        ramp = limit / (1 + _MARGIN)
        low_x, low_y = _minorant(x, y, ramp)
        high_x, high_y = _minorant(1 - x[::-1], 1 - y[::-1], ramp)
        high_x, high_y = 1 - high_x[::-1], 1 - high_y[::-1]
        # Sampled where float32 has a number, and no closer than where rounding of y (2**-24 for two) could be seen in a slope.
        grid = _spaced(np.union1d(low_x, high_x).astype(np.float32).astype(np.float64), 2.0**-24 / (_MARGIN * ramp))
        values = (np.interp(grid, low_x, low_y) + np.interp(grid, high_x, high_y)) / 2
        return CalibrationCurve.from_knots(grid, np.clip(values, 0, 1))

    def to_dict(self) -> dict[str, list[float]]:
        """Knots as JSON numbers; float32 survives the trip exactly."""
        return {"x": [float(v) for v in self.x], "y": [float(v) for v in self.y]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CalibrationCurve:
        """Inverse of `to_dict`."""
        if "x" not in values or "y" not in values:
            raise FileError("calibration curve: needs the keys x and y")
        try:
            return cls(np.asarray(values["x"], np.float32), np.asarray(values["y"], np.float32))
        except (TypeError, ValueError):
            raise FileError("calibration curve: x and y must be lists of numbers") from None


def _spaced(knots: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """The first and the last of increasing `knots`, and those between that leave `gap` to the one before and to the last."""
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
