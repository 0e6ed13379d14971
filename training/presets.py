"""What each architecture is trained with when nothing else is said: input size and head."""

from __future__ import annotations

import re
from dataclasses import dataclass

DUAL_STREAM, ENSEMBLE = "dual_stream", "ensemble"


@dataclass(frozen=True)
class Preset:
    """Defaults of one architecture.

    size: height and width in pixels. hidden: widths of the head's hidden layers. dropout: probability before each of its
    linear layers. head_norm: whether batch norm follows each hidden layer.
    """

    size: int = 128
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.2
    head_norm: bool = False


PRESETS = {
    "efficientnet_b0": Preset(),
    "resnext50_32x4d": Preset(size=224, hidden=(), dropout=0.2),
    "resnet50": Preset(size=224, hidden=(512, 128), dropout=0.3, head_norm=True),
    DUAL_STREAM: Preset(size=224, hidden=(256,), dropout=0.2),
}


_SAYS_ITS_SIZE = re.compile(r"(?!regnet).*_(224|240|256|288|336|384|448|512)(\..*)?")  # regnet's numbers count operations


def preset(model: str) -> Preset:
    """The architecture's own defaults, or the general ones.

    A transformer is built for one input size. Many say theirs in their name (`swin_tiny_patch4_window7_224`); patches of 14 px
    do not divide 128.
    """
    if model in PRESETS:
        return PRESETS[model]
    if says := _SAYS_ITS_SIZE.fullmatch(model):
        return Preset(size=int(says[1]))
    return Preset(size=224) if "patch14" in model else Preset()
