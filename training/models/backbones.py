"""Backbones: a timm or torchvision classifier up to its feature map, or to the grid of its tokens."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detector.errors import UnmaskError
from training.errors import UnknownModel
from training.models.hub import weights_unreachable
from training.models.tokens import LIKE_IT, TokenGrid, build_for_size, channels_last, has_one_size

_ANY_SIZE = 64  # pixels: what a network that takes photos of any size is tried with
_TWINS = {"vit_b_16": "vit_base_patch16_224", "vit_b_32": "vit_base_patch32_224", "vit_l_16": "vit_large_patch16_224"}
_TWINS |= {"vit_l_32": "vit_large_patch32_384", "vit_h_14": "vit_huge_patch14_224", "maxvit_t": "maxvit_tiny_tf_224"}


def backbone(name: str, *, size: int, multiscale: bool = False, pretrained: bool = False) -> tuple[nn.Module, int]:
    """A module from float32[N, 3, H, W] to a feature map float32[N, C, h, w], and C.

    name: a timm model, or a torchvision one (`torchvision/NAME` says so where both have it). size: H and W, which a network of
    one input size is built for. multiscale: the map holds the channels of every block (torchvision) or of every resolution
    (timm) that the network goes through, not of the last alone; of a transformer whose blocks have one resolution those of
    four, evenly spaced. pretrained: with the hub's ImageNet weights, else random ones.
    Raises `UnknownModel` when there is no such network, `UnfitSize` when it can't take that size, `HubUnreachable` when its
    weights can't be fetched.
    """
    import timm
    import torchvision

    plain = name.removeprefix("torchvision/")
    try:
        if plain == name and timm.is_model(name):
            features: nn.Module = _timm_features(name, size, multiscale=multiscale, pretrained=pretrained)
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
    return features, _channels(features, name, size if has_one_size(name) else _ANY_SIZE)


def _timm_features(name: str, size: int, *, multiscale: bool, pretrained: bool) -> nn.Module:
    import timm

    if has_one_size(name):
        model = build_for_size(name, size, multiscale=multiscale, pretrained=pretrained)
    else:
        shape = {"features_only": True} if multiscale else {"num_classes": 0, "global_pool": ""}
        model = timm.create_model(name, pretrained=pretrained, **shape)
        if hasattr(model, "num_prefix_tokens"):
            model = TokenGrid(model)
    return model if isinstance(model, TokenGrid) else _TimmFeatures(model)


class _TimmFeatures(nn.Module):
    """A timm model up to its feature map, or to the last map of each resolution where it gives these."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_last = channels_last(model)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return maps[0] if len(maps) == 1 else _stacked(maps)

    def maps(self, x: Tensor) -> list[Tensor]:
        """The maps that it gives, finest first."""
        given = self.model(x)
        maps = [given] if isinstance(given, Tensor) else given
        return [each.permute(0, 3, 1, 2) for each in maps] if self.channels_last else maps


class _EachBlock(nn.Sequential):
    """A torchvision model's layers in turn, and the map that each of its blocks gives."""

    def __init__(self, layers: nn.Module) -> None:
        blocks = isinstance(layers, nn.Sequential) and any(_is_block(layer) for layer in layers)
        if not blocks or "permute" in dict(layers.named_children()):
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
    children = dict(model.named_children())
    if "permute" in children:  # Swin: its maps are float32[N, h, w, C] up to there
        return nn.Sequential(OrderedDict((k, children[k]) for k in ("features", "norm", "permute")))
    if "features" in children:
        return children["features"]
    if "avgpool" in children and "fc" in children:
        return nn.Sequential(OrderedDict((k, v) for k, v in children.items() if k not in ("avgpool", "fc")))
    other = f"timm's {_TWINS[name]} is the same network, and works" if name in _TWINS else f"others that do: {LIKE_IT}"
    raise UnknownModel(f"torchvision's {name!r} has no feature map followed by pooling; {other}")


def _channels(features: nn.Module, name: str, size: int) -> int:
    training = features.training
    try:
        with torch.no_grad():
            shape = features.eval()(torch.zeros(1, 3, size, size)).shape
    except (RuntimeError, AssertionError) as error:
        raise UnknownModel(f"model {name!r} can't take photos of any size ({error}); others that work: {LIKE_IT}") from None
    features.train(training)
    if len(shape) != 4:
        raise UnknownModel(f"model {name!r} gives features of shape {tuple(shape)}, which are no grid; others do: {LIKE_IT}")
    return int(shape[1])
