"""Architectures by name: the config a checkpoint holds, and the network it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from detector.spec import ImageSpec
from training.models.backbones import backbone
from training.models.forensic import ForensicStream, TwoStreams
from training.models.gram import gram_net
from training.models.heads import GatedHead, MlpHead
from training.models.networks import DetectorNet, DualStreamNet, EnsembleNet, PooledNet
from training.presets import DUAL_STREAM, ENSEMBLE

VISUAL = "mobilenetv2_100"  # timm's MobileNetV2 (arXiv 1801.04381), the visual stream of `dual_stream`
DEFAULT_SPEC = ImageSpec()


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to build the network again from a checkpoint.

    name: a timm model, a torchvision one (`torchvision/NAME` says so where both have it), `dual_stream` or `ensemble`.
    hidden: width of each hidden layer of the head. dropout: probability before each of its linear layers. head_norm: whether
    batch norm follows each hidden layer. multiscale: whether the head sees the features of every block or resolution. gram:
    of which of these, counted from 1, it also sees the pairs of channels. zoom: how many times larger than the photo the
    backbone's input is. members: the networks that an ensemble averages; it has no head of its own. mirror: whether an
    ensemble averages over the photo's mirror image too.
    """

    name: str = "efficientnet_b0"
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.2
    head_norm: bool = False
    multiscale: bool = False
    gram: tuple[int, ...] = ()
    zoom: float = 1.0
    members: tuple[ModelConfig, ...] = ()
    mirror: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            **asdict(self),
            "hidden": list(self.hidden),
            "gram": list(self.gram),
            "members": [member.to_dict() for member in self.members],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`."""
        plain: dict[str, Any] = dict(values)
        plain["hidden"] = tuple(plain["hidden"])
        plain["gram"] = tuple(plain.get("gram", ()))
        plain["members"] = tuple(cls.from_dict(member) for member in plain.get("members", ()))
        return cls(**plain)


def build_model(config: ModelConfig, spec: ImageSpec = DEFAULT_SPEC, *, pretrained: bool = False) -> DetectorNet:
    """The network of `config` with random weights, or with the hub's ImageNet weights in its backbone.

    spec: how its photos are prepared; a network of one input size is built for theirs, and the forensic stream measures in
    their grey levels.
    Raises `UnknownModel` when there is no such network, `UnfitSize` when it can't take the spec's size, `HubUnreachable` when
    its weights can't be fetched.
    """
    if config.name == ENSEMBLE:
        return EnsembleNet([build_model(member, spec) for member in config.members], mirror=config.mirror)
    shape = config.hidden, config.dropout, config.head_norm
    size = int(spec.size * config.zoom)
    if config.name == DUAL_STREAM:
        visual, channels = backbone(VISUAL, size=size, multiscale=config.multiscale, pretrained=pretrained)
        forensic = ForensicStream(spec)
        head = GatedHead(channels, forensic.channels, *shape, even=config.multiscale)
        return DualStreamNet(TwoStreams(visual, forensic), head)
    features, channels = backbone(config.name, size=size, multiscale=config.multiscale, pretrained=pretrained)
    if config.gram:
        return gram_net(features, config.gram, *shape, size=size, zoom=config.zoom)
    return PooledNet(features, MlpHead(channels, *shape, even=config.multiscale), zoom=config.zoom)
