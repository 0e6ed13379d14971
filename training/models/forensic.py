"""The forensic stream: noise residuals, which show how a picture was made, and a small convolutional trunk on them."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from detector.spec import ImageSpec

CLIP = 3.0  # grey levels
KERNEL = 5
WIDTHS = (32, 64, 128, 192, 256)
_SMALLEST_SUM = 0.1


def srm_kernels() -> Tensor:
    """Three high-pass kernels of the spatial rich model as RGB-N uses them (arXiv 1805.04953): float32[3, 5, 5]."""
    second_order = [[0, 0, 0, 0, 0], [0, -1, 2, -1, 0], [0, 2, -4, 2, 0], [0, -1, 2, -1, 0], [0, 0, 0, 0, 0]]
    square = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
    line = [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, -2, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    divisors = torch.tensor([4.0, 12.0, 2.0]).reshape(3, 1, 1)
    return torch.tensor([second_order, square, line], dtype=torch.float32) / divisors


class BayarConstraint(nn.Module):
    """Kernels that predict a pixel from its neighbours: the centre is -1 and the rest sums to 1, in each channel of each.

    Bayar and Stamm, "Constrained convolutional neural networks", IEEE TIFS 2018. As a parametrisation it needs no step after
    the optimiser's, and holds at every moment.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """The constrained kernels, float32, of any weight[O, I, K, K]."""
        size = weight.shape[-1]
        around = torch.ones(size, size, device=weight.device)
        around[size // 2, size // 2] = 0
        rest = weight.float() * around
        rest = rest / rest.sum(dim=(2, 3), keepdim=True).clamp_min(_SMALLEST_SUM)
        # Nothing, unless the sum was too small to divide by.
        rest = rest + around * (1 - rest.sum(dim=(2, 3), keepdim=True)) / (size * size - 1)
        return rest + around - 1


class ForensicStream(nn.Module):
    """Residuals of a fixed SRM bank and of learned constrained kernels, and five strided convolutions on them.

    The input is float32[N, 3, H, W], normalised as `spec` says; the output is float32[N, 256, h, w] at a 32nd of the size,
    rounded up, as most backbones give.
    """

    channels = WIDTHS[-1]
    bank: Tensor
    scale: Tensor

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        # Both are known from the code and the spec, so no checkpoint needs to hold them.
        self.register_buffer("bank", _each_colour(srm_kernels()), persistent=False)
        self.register_buffer("scale", 255 * torch.tensor(spec.std).reshape(3, 1, 1), persistent=False)
        self.bayar = nn.Conv2d(3, 3, KERNEL, bias=False)
        nn.init.uniform_(self.bayar.weight, 0, 2 / (KERNEL * KERNEL - 1))  # positive, and the rest sums to 1 or so
        parametrize.register_parametrization(self.bayar, "weight", BayarConstraint())
        residuals = len(self.bank) + self.bayar.out_channels
        self.trunk = nn.Sequential(
            nn.BatchNorm2d(residuals), *(_block(a, b) for a, b in zip((residuals, *WIDTHS[:-1]), WIDTHS, strict=True))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(self.residuals(x))

    def residuals(self, x: Tensor) -> Tensor:
        """Noise residuals in grey levels, float32[N, 12, H, W]: three clipped SRM ones of each colour, three constrained ones.

        In float32 under autocast too, since bfloat16 can't tell one grey level of a bright pixel from the next.
        """
        kind = x.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            # All kernels sum to zero, so the mean that normalisation took away need not be put back.
            levels = F.pad(x.float() * self.scale, (KERNEL // 2,) * 4, mode="reflect")
            # One convolution for both: the three constrained kernels alone cost ONNX Runtime as much as sixteen.
            residuals = F.conv2d(levels, torch.cat([self.bank, self.bayar.weight]))
            fixed, constrained = residuals.split([len(self.bank), self.bayar.out_channels], dim=1)
            return torch.cat([fixed.clamp(-CLIP, CLIP), constrained], dim=1)


class TwoStreams(nn.Module):
    """A visual backbone's feature map and the forensic one's, one behind the other: float32[N, C + 256, h, w]."""

    def __init__(self, visual: nn.Module, forensic: ForensicStream) -> None:
        super().__init__()
        self.visual = visual
        self.forensic = forensic

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.visual(x), self.forensic(x)], dim=1)


def _each_colour(kernels: Tensor) -> Tensor:
    """Kernels[K, H, W] for each of three colours alone: float32[3 K, 3, H, W], zero for the other two."""
    alone = torch.eye(3).reshape(3, 1, 3, 1, 1) * kernels[:, None]
    return alone.reshape(-1, 3, *kernels.shape[1:])


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
