"""timm's networks that work on tokens or at one input size: transformers, mixers and their kin, as grids of features."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from training.errors import UnfitSize, UnknownModel

LIKE_IT = "vit_tiny_patch16_224, swin_tiny_patch4_window7_224, convnext_atto"  # of the kinds that work
_STEPS = (14, 16, 32, 56, 64)  # pixels of a patch, or of a window of patches
_LEVELS = 4  # maps that `multiscale` takes of a network whose blocks all have one resolution


class TokenGrid(nn.Module):
    """A timm network up to the grid of its patch tokens: float32[N, 3, H, H] to float32[N, C, h, h].

    Class, distillation and register tokens are left out: a photo's features are the mean over its patches, as a convolutional
    network's are the mean over its map, so each patch's part in the logit is known. Where timm normalises after pooling, the
    patches are normalised instead.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.prefix = int(getattr(model, "num_prefix_tokens", None) or 0)

    def forward(self, x: Tensor) -> Tensor:
        """Places in the order of the photo: rows, then columns."""
        found = self.model.forward_features(x)  # type: ignore[operator]
        if found.dim() == 4:  # [N, h, w, C]
            return cast(Tensor, found.permute(0, 3, 1, 2))
        if isinstance(norm := getattr(self.model, "fc_norm", None), nn.Module):
            found = norm(found)
        tokens = found[:, self.prefix :]
        side = math.isqrt(int(tokens.shape[1]))  # the photo is a square
        return cast(Tensor, tokens.transpose(1, 2).unflatten(2, (side, side)))


def has_one_size(name: str) -> bool:
    """Whether a timm network is built for one input size, which `img_size` sets."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return bool(config and config.fixed_input_size)


def channels_last(model: nn.Module) -> bool:
    """Whether a timm network's maps are float32[N, h, w, C]."""
    return str(getattr(model, "output_fmt", "")).endswith("NHWC")


def build_for_size(name: str, size: int, *, multiscale: bool, pretrained: bool) -> nn.Module:
    """A network of one input size, built for photos of `size` pixels: a `TokenGrid`, or what gives maps itself.

    Raises `UnfitSize` naming sizes that it takes, `UnknownModel` when its features are no grid at any size.
    """
    import timm

    found, model = _require_fit(name, size)
    build = cast(Callable[..., nn.Module], timm.create_model)
    if multiscale:
        return build(name, pretrained=pretrained, img_size=size, features_only=True, **_levels(model))
    if found.dim() == 4 and not channels_last(model):
        return build(name, pretrained=pretrained, img_size=size, num_classes=0, global_pool="")
    # Built as timm's weights are, whose names depend on the pooling, and only then without it.
    network = build(name, pretrained=pretrained, img_size=size, num_classes=0)
    with contextlib.suppress(AssertionError, TypeError):  # of what has no weights in its pooling and can't do without it
        network.reset_classifier(0, "")  # type: ignore[operator]
    return TokenGrid(network)


def _levels(model: nn.Module) -> dict[str, Any]:
    """Which maps are taken: of blocks of one resolution a few, from all over the depth; else timm's, one a resolution."""
    info = cast(list[dict[str, Any]], getattr(model, "feature_info", []))
    if len(info) <= _LEVELS or len({level.get("reduction") for level in info}) > 1:
        return {}
    return {"out_indices": tuple(round(len(info) * (i + 1) / _LEVELS) - 1 for i in range(_LEVELS))}


def _require_fit(name: str, size: int) -> tuple[Tensor, nn.Module]:
    """What the network gives for one photo of `size` pixels, and itself, both without values (torch's device "meta")."""
    import timm

    found = _tried(name, size)
    if not isinstance(found, str):
        return found
    own = int(timm.get_pretrained_cfg(name).input_size[-1])  # type: ignore[union-attr]
    if isinstance(why := found if own == size else _tried(name, own), str):
        raise UnknownModel(f"model {name!r} has no grid of features ({why}); others do: {LIKE_IT}")
    fitting = {own}
    near = {step * n for step in _STEPS for n in (size // step, size // step + 1) if n} - {size}
    for other in sorted(near, key=lambda near: abs(near - size)):
        if len(fitting) < 3 and not isinstance(_tried(name, other), str):
            fitting.add(other)
    *some, last = map(str, sorted(fitting))
    sizes = f"{', '.join(some)} or {last}" if some else last
    raise UnfitSize(f"model {name!r} can't take photos of {size} px ({found}); give --size {sizes}")


def _tried(name: str, size: int) -> tuple[Tensor, nn.Module] | str:
    """As `_require_fit`, or why it does not work, in a few words."""
    import timm

    try:
        with torch.device("meta"), torch.no_grad():
            model = timm.create_model(name, num_classes=0, img_size=size).eval()
            found = model.forward_features(torch.zeros(1, 3, size, size))  # type: ignore[operator]
    except AssertionError as error:
        return str(error).partition("\n")[0].rstrip(".") or "its blocks do not divide them evenly"
    except Exception:  # of shapes that do not go together, each network in its own way
        return "its layers are made for other sizes"
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    side = patch[0] if isinstance(patch, tuple) else patch
    if isinstance(side, int) and size % side:
        return f"its patches have {side} px, and the last {size % side} px would not be seen"
    if not isinstance(found, Tensor):
        return "it gives several sets of tokens"
    if found.dim() == 3 and (problem := _no_grid(found.shape[1] - int(getattr(model, "num_prefix_tokens", None) or 0))):
        return problem
    return found, model


def _no_grid(tokens: int) -> str:
    if tokens == 1:
        return "it gives one token for the whole photo"
    return "" if math.isqrt(tokens) ** 2 == tokens else f"it gives {tokens} tokens, which are no square"
