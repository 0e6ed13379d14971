"""Backbones: the convolutional part of a timm or torchvision classifier, up to its feature map."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.errors import UnmaskError
from training.errors import UnknownModel
from training.models.hub import weights_unreachable


def backbone(name: str, *, multiscale: bool = False, pretrained: bool = False) -> tuple[nn.Module, int]:
    """A module from float32[N, 3, H, W] to a feature map float32[N, C, h, w], and C.

    name: a timm model, or a torchvision one (`torchvision/NAME` says so where both have it). multiscale: the map holds the
    channels of every block (torchvision) or of every resolution (timm) that the network goes through, not of the last alone.
    pretrained: with the hub's ImageNet weights, else random ones.
    Raises `UnknownModel` when there is no such network, `HubUnreachable` when its weights can't be fetched.
    """
    import timm
    import torchvision

    plain = name.removeprefix("torchvision/")
    try:
        if plain == name and timm.is_model(name):
            shape = {"features_only": True} if multiscale else {"num_classes": 0, "global_pool": ""}
            features: nn.Module = _TimmFeatures(timm.create_model(name, pretrained=pretrained, **shape))
        elif plain in torchvision.models.list_models(module=torchvision.models):
            model = torchvision.models.get_model(plain, weights="DEFAULT" if pretrained else None)
            features = _torchvision_features(model, plain)
            features = _EachBlock(features) if multiscale else features
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
        raise weights_unreachable(name, error) from None
    return features, _channels(features, name)


class _TimmFeatures(nn.Module):
    """A timm model up to its feature map, or to the last map of each resolution where it gives these."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return maps[0] if len(maps) == 1 else _stacked(maps)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maps that it gives, finest first."""
        maps = self.model(x)
        return [maps] if isinstance(maps, Tensor) else maps


class _EachBlock(nn.Sequential):
    """A torchvision model's layers in turn, and the map that each of its blocks gives."""

    def __init__(self, layers: nn.Module) -> None:
        if not isinstance(layers, nn.Sequential) or not any(_is_block(layer) for layer in layers):
            raise UnknownModel("--multiscale needs a torchvision model that is a plain sequence of blocks; timm's all work")
        super().__init__(OrderedDict(layers.named_children()))

    def forward(self, x: Tensor) -> Tensor:
        return _stacked(self.maps(x))

    def maps(self, x: Tensor) -> list[Tensor]:
        """The map of each block, in order."""
        maps: list[Tensor] = []
        for layer in self:
            x = layer(x)
            if _is_block(layer):
                maps.append(x)
        return maps


def _is_block(layer: nn.Module) -> bool:
    """Whether a layer is made of layers: a residual or Fire block, say, and not a convolution or pooling by itself."""
    return next(layer.children(), None) is not None


def resized_down(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps averaged over blocks of whole pixels, at a size that they are at least as large as."""
    return F.avg_pool2d(maps, (maps.shape[2] // height, maps.shape[3] // width))[:, :, :height, :width]


def _stacked(maps: list[Tensor]) -> Tensor:
    """Maps of falling resolution as one of the last's size, their channels one after the other; finer ones are averaged."""
    height, width = maps[-1].shape[2:]
    return torch.cat([resized_down(each, height, width) for each in maps], dim=1)


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
