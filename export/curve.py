"""The calibration curve as a torch module, for the ONNX graph: the same formula as `detector.CalibrationCurve`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detector.calibration import CalibrationCurve


class Curve(nn.Module):
    """Piecewise-linear interpolation by compare, sum, gather and lerp, all in float32.

    The forms that other converters use (nearest knot, a sum of ReLU slopes, float16) are off by 0.05 to 31 on isotonic
    curves; this one is exact to rounding. `torch.searchsorted` has no ONNX translation.
    """

    x: Tensor
    start: Tensor
    width: Tensor
    low: Tensor
    rise: Tensor

    def __init__(self, curve: CalibrationCurve) -> None:
        super().__init__()
        x, y = torch.from_numpy(curve.x.copy()), torch.from_numpy(curve.y.copy())
        for name, value in (("x", x), ("start", x[:-1]), ("width", x.diff()), ("low", y[:-1]), ("rise", y.diff())):
            self.register_buffer(name, value.clone())

    def forward(self, raw_prob: Tensor) -> Tensor:
        """Calibrated probability, float32[N], of raw probability, float32[N]."""
        piece = ((raw_prob.unsqueeze(1) >= self.x).sum(dim=1) - 1).clamp(0, len(self.x) - 2)
        t = ((raw_prob - self.start[piece]) / self.width[piece]).clamp(0, 1)
        # Whether Clip keeps a NaN is up to each runtime's vector code, so it is put back by name.
        return torch.where(torch.isnan(raw_prob), raw_prob, self.low[piece] + t * self.rise[piece])
