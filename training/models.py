"""The detector network: a convolutional backbone, global average pooling, an MLP head, one logit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from detector.errors import UnmaskError, UsageError


class UnknownModel(UnmaskError):
    """The architecture's name is in neither timm nor torchvision, or it has no convolutional feature map."""

    code = "unknown_model"
    status = 400


class HubUnreachable(UnmaskError):
    """Pretrained weights were asked for and can't be downloaded."""

    code = "hub_unreachable"
    status = 503


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to build the network again from a checkpoint.

    name: a timm model, or a torchvision one (`torchvision/NAME` says so where both have it).
    hidden: width of each hidden layer of the head. dropout: probability before each of its linear layers. head_norm: whether
    batch norm follows each hidden layer.
    """

    name: str = "efficientnet_b0"
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.2
    head_norm: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`."""
        plain: dict[str, Any] = dict(values)
        plain["hidden"] = tuple(plain["hidden"])
        return cls(**plain)


class DetectorNet(nn.Module):
    """Backbone features, global average pooling, MLP head.

    The input is float32[N, 3, H, W], normalised; the logit is float32[N], above zero leans fake.
    """

    def __init__(self, features: nn.Module, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.features = features
        self.head = mlp_head(channels, config.hidden, config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """The logit, float32[N]."""
        return self.head(self.features(x).mean(dim=(2, 3))).squeeze(1)

    def logit_and_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logit, and which places speak for it: float32[N] and float32[N, h, w] at feature-map size.

        The map is Grad-CAM (Selvaraju et al., arXiv 1610.02391) of the logit before its final ReLU: above zero speaks for
        fake, below for real. The head is piecewise linear, so the gradient is written out and no backward pass is needed.
        """
        maps = self.features(x)
        logit, gradient = _head_with_gradient(self.head, maps.mean(dim=(2, 3)))
        weights = gradient / (maps.shape[2] * maps.shape[3])
        return logit.squeeze(1), torch.einsum("nc,nchw->nhw", weights, maps)


def mlp_head(channels: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Dropout and linear layers with ReLU between them, down to one logit."""
    layers: list[nn.Module] = []
    width = channels
    for size in hidden:
        layers += [nn.Dropout(dropout), nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear(width, 1))


def _head_with_gradient(head: nn.Sequential, pooled: Tensor) -> tuple[Tensor, Tensor]:
    """The head's output [N, 1] and its gradient with respect to `pooled`, [N, C], in closed form."""
    value, active = pooled, []
    for layer in head:
        if isinstance(layer, nn.ReLU):
            active.append((value > 0).to(value.dtype))
        if not isinstance(layer, nn.Dropout):  # identity at inference, which is when this runs
            value = layer(value)
    gradient = torch.ones_like(value)
    for layer in reversed(head):
        if isinstance(layer, nn.Linear):
            gradient = gradient @ layer.weight
        elif isinstance(layer, nn.ReLU):
            gradient = gradient * active.pop()
    return value, gradient


def build_model(config: ModelConfig, *, pretrained: bool = False) -> DetectorNet:
    """The network of `config` with random weights, or with the hub's ImageNet weights in its backbone.

    Raises `UnknownModel` when there is no such network, `HubUnreachable` when its weights can't be fetched.
    """
    features, channels = _features(config.name, pretrained)
    return DetectorNet(features, channels, config)


def _features(name: str, pretrained: bool) -> tuple[nn.Module, int]:
    import timm
    import torchvision

    plain = name.removeprefix("torchvision/")
    try:
        if plain == name and timm.is_model(name):
            features: nn.Module = _TimmFeatures(timm.create_model(name, pretrained=pretrained, num_classes=0, global_pool=""))
        elif plain in torchvision.models.list_models(module=torchvision.models):
            model = torchvision.models.get_model(plain, weights="DEFAULT" if pretrained else None)
            features = _torchvision_features(model, plain)
        else:
            raise UnknownModel(
                f"model {name!r} is neither in timm nor in torchvision; `timm.list_models()` and "
                "`torchvision.models.list_models()` print what is"
            )
    except UnmaskError:
        raise
    except Exception as error:  # requests, urllib, huggingface_hub and safetensors each have their own
        if not pretrained:
            raise
        raise HubUnreachable(
            f"pretrained weights of {name!r} can't be fetched ({type(error).__name__}); "
            "give a local file with --weights FILE, or start from random weights with --no-pretrained"
        ) from None
    return features, _channels(features, name)


class _TimmFeatures(nn.Module):
    """A timm model up to its feature map."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def _torchvision_features(model: nn.Module, name: str) -> nn.Module:
    """The part of a torchvision classifier before its pooling."""
    features = getattr(model, "features", None)
    if isinstance(features, nn.Module):
        return features
    children = dict(model.named_children())
    if "avgpool" in children and "fc" in children:
        return nn.Sequential(OrderedDict((k, v) for k, v in children.items() if k not in ("avgpool", "fc")))
    raise UnknownModel(f"torchvision's {name!r} has no feature map followed by pooling; convolutional classifiers do")


def _channels(features: nn.Module, name: str) -> int:
    training = features.training
    try:
        with torch.no_grad():
            shape = features.eval()(torch.zeros(1, 3, 64, 64)).shape
    except (RuntimeError, AssertionError) as error:  # a transformer asserts its one input size
        raise UnknownModel(f"model {name!r} can't take photos of any size ({error}); choose a convolutional one") from None
    features.train(training)
    if len(shape) != 4:
        raise UnknownModel(
            f"model {name!r} gives tokens of shape {tuple(shape)}, not a feature map; choose a convolutional one"
        )
    return int(shape[1])


def load_backbone(model: DetectorNet, weights: Mapping[str, Tensor], source: str) -> int:
    """Copy a backbone's tensors into `model`, by name and shape; returns how many of its tensors were set.

    Names may carry the usual prefixes (`features.`, `model.`, `backbone.`, `module.`) and a classifier is passed over.
    Raises `UsageError` naming `source` when less than half of the backbone is found there, since the rest would be random.
    """
    own = model.features.state_dict()
    prefixes = ("module.", "backbone.", "model.", "features.")
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        names = [key]
        for prefix in prefixes:
            names += [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
        for candidate in [c for n in names for c in (n, f"model.{n}")]:
            if candidate in own and own[candidate].shape == value.shape:
                found[candidate] = value
                break
    wanted = [k for k in own if not k.endswith("num_batches_tracked")]
    if sum(k in found for k in wanted) * 2 < len(wanted):
        raise UsageError(
            f"{source}: {sum(k in found for k in wanted)} of the backbone's {len(wanted)} tensors match; "
            "is it a file for another architecture? --model must name the one it was trained with"
        )
    model.features.load_state_dict(found, strict=False)
    return len(found)
