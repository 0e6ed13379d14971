"""Where a network's first weights come from: the hub's ImageNet ones, a repository there, a local file, or chance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.errors import FileError, UsageError
from detector.spec import ImageSpec
from training.models.build import DEFAULT_SPEC, VISUAL, ModelConfig, build_model
from training.models.forensic import TwoStreams
from training.models.hub import fetch_weights, impatient_hub
from training.models.networks import DetectorNet, PooledNet
from training.models.packaged import packaged_weights
from training.options import HUB


def initial_model(
    config: ModelConfig,
    spec: ImageSpec = DEFAULT_SPEC,
    *,
    weights: str | None,
    pretrained: bool,
    packaged: str | None = None,
) -> DetectorNet:
    """The network before training: backbone from `weights`, else pretrained if `pretrained`, else random; random head.

    packaged: of which of `training.presets.PACKAGED` the pretrained weights are; None for the hub's. Of two streams the hub
    has the visual one.

    Raises `HubUnreachable` within seconds when the hub does not answer and holds no copy here, `FileError` when the file is
    not one of weights, `UsageError` when it is for another architecture, `WeightsNotInstalled`.
    """
    if weights is not None:
        model = build_model(config, spec)
        assert isinstance(model, PooledNet)  # an ensemble is made of finished runs
        file = fetch_weights(weights) if weights.startswith(HUB) else Path(weights)
        load_backbone(model, read_weights(file), weights if weights.startswith(HUB) else file.name)
        return model
    if not pretrained:
        return build_model(config, spec)
    if packaged is not None:
        model = build_model(config, spec)
        assert isinstance(model, PooledNet)
        load_backbone(model, packaged_weights(packaged), packaged)
        return model
    with impatient_hub():
        return build_model(config, spec, pretrained=True)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or a torch file, without running code from it."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle, zip and torch each raise their own
        raise FileError(
            f"{path.name}: is not a file of weights that loads without running code ({type(error).__name__})"
        ) from None
    # Training scripts wrap the state dict in one of these; our own checkpoints in the last.
    for key in ("state_dict", "model_state_dict", "model", "weights"):
        if isinstance(values, dict) and isinstance(values.get(key), dict) and _is_state_dict(values[key]):
            return values[key]
    if not isinstance(values, dict) or not _is_state_dict(values):
        raise FileError(f"{path.name}: holds no state dict (names with tensors)")
    return values


def _is_state_dict(values: dict) -> bool:
    return bool(values) and all(isinstance(v, Tensor) for v in values.values())


def load_backbone(model: PooledNet, weights: Mapping[str, Tensor], source: str) -> int:
    """Copy a backbone's tensors into `model`, by name and shape; returns how many of its tensors were set.

    Names may carry the usual prefixes (`features.`, `model.`, `backbone.`, `module.`) and a classifier is passed over. Of two
    streams both are set from such a network's file, else the visual one.
    Raises `UsageError` naming `source` when less than half of the backbone is found there, since the rest would be random.
    """
    features = model.features
    targets = [features, features.visual] if isinstance(features, TwoStreams) else [features]
    matches = [(target, _matching(target, weights)) for target in targets]
    for target, found in matches:
        if _share(target, found) >= 0.5:
            target.load_state_dict(found, strict=False)
            return len(found)
    best = max(_share(target, found) for target, found in matches)
    also = f" or {VISUAL}" if len(targets) > 1 else ""
    raise UsageError(
        f"{source}: {best:.0%} of the backbone's tensors are there; "
        f"is it a file for another architecture? --model must name the one it was trained with{also}"
    )


def _matching(target: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `weights` that fit a tensor of `target`, by its names."""
    own = target.state_dict()
    found: dict[str, Tensor] = {}
    for key, value in weights.items():
        names = [key]
        for prefix in ("module.", "backbone.", "model.", "features."):
            names += [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
        for candidate in [c for n in names for c in (n, f"model.{n}")]:
            if candidate in own and own[candidate].shape == value.shape:
                found[candidate] = value
                break
    return found


def _share(target: nn.Module, found: Mapping[str, Tensor]) -> float:
    """Which part of a module's tensors was found; batch norm's step counters say nothing."""
    wanted = [k for k in target.state_dict() if not k.endswith("num_batches_tracked")]
    return sum(k in found for k in wanted) / len(wanted)
