"""Where a network's first weights come from: the hub's ImageNet ones, a repository there, a local file, or chance."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.errors import UnmaskError, UsageError
from detector.files import shown
from detector.spec import ImageSpec
from training.models.backbones import backbone
from training.models.build import DEFAULT_SPEC, VISUAL, ModelConfig, build_model
from training.models.forensic import TwoStreams
from training.models.hub import fetch_weights, impatient_hub
from training.models.matching import Match, best_match
from training.models.networks import DetectorNet, PooledNet
from training.models.packaged import packaged_weights
from training.models.weight_files import read_states
from training.options import HUB

ENOUGH = 0.95  # of a backbone's tensors; the rest would be random


def initial_model(
    config: ModelConfig,
    spec: ImageSpec = DEFAULT_SPEC,
    *,
    weights: str | None,
    pretrained: bool,
    packaged: str | None = None,
    partial: bool = False,
) -> DetectorNet:
    """The network before training: backbone from `weights`, else pretrained if `pretrained`, else random; random head.

    packaged: of which of `training.presets.PACKAGED` the pretrained weights are; None for the hub's. Of two streams the hub
    has the visual one. partial: take what a file has, however little. What a file has is said on stderr.

    Raises `HubUnreachable` within seconds when the hub does not answer and holds no copy here, `FileError` when the file is
    not one of weights, `UsageError` when it is for another architecture, `WeightsNotInstalled`.
    """
    if weights is not None:
        model = build_model(config, spec)
        assert isinstance(model, PooledNet)  # an ensemble is made of finished runs
        file = fetch_weights(weights) if weights.startswith(HUB) else Path(weights)
        source = weights if weights.startswith(HUB) else shown(file.name)
        match = load_backbone(model, read_states(file), source, name=config.name, size=spec.size, partial=partial)
        if os.environ.get("RANK", "0") == "0":  # of the processes that accelerate launched one speaks
            print(described(match, source), file=sys.stderr)
        return model
    if not pretrained:
        return build_model(config, spec)
    if packaged is not None:
        model = build_model(config, spec)
        assert isinstance(model, PooledNet)
        load_backbone(model, {"": packaged_weights(packaged)}, packaged)
        return model
    with impatient_hub():
        return build_model(config, spec, pretrained=True)


def load_backbone(
    model: PooledNet,
    states: Mapping[str, Mapping[str, Tensor]],
    source: str,
    *,
    name: str = "",
    size: int = DEFAULT_SPEC.size,
    partial: bool = False,
) -> Match:
    """Copy a backbone's tensors into `model` from that of `states` which has most of them; returns what was found.

    Names may have any prefix, and a classifier is passed over. Of two streams both are set from such a network's file, else
    the visual one. name, size: of the model, to tell which one a file is for.
    Raises `UsageError` naming `source` when less than `ENOUGH` of the backbone is found there, or a tensor has another shape,
    unless `partial`; and when nothing is found.
    """
    features = model.features
    targets: list[nn.Module] = [features, features.visual] if isinstance(features, TwoStreams) else [features]
    matches = [best_match(target, states) for target in targets]
    for target, match in zip(targets, matches, strict=True):
        if match.share >= ENOUGH and not match.unfit:
            return _set(target, match)
    target, match = max(zip(targets, matches, strict=True), key=lambda pair: pair[1].share)
    if partial and match.found:
        return _set(target, match)
    raise UsageError(_refusal(match, source, _other_library(name, size, states), two_streams=len(targets) > 1))


def described(match: Match, source: str) -> str:
    """What a file had for a backbone, in a line."""
    where = " under ".join(f"{place!r}" for place in (match.where, match.prefix) if place)
    parts = [f"{source}: {_amount(match)}" + (f", from {where}" if where else "")]
    if match.missing:
        parts.append(f"random: {_some(match.missing)}")
    if match.surplus:
        parts.append(f"not used: {_some(match.surplus)}")
    return "; ".join(parts)


def _set(target: nn.Module, match: Match) -> Match:
    with torch.no_grad():
        target.load_state_dict(match.found, strict=False)
    return match


def _refusal(match: Match, source: str, other: str, *, two_streams: bool) -> str:
    said = f"{source}: {_amount(match)}"
    if match.unfit:
        said += f"; of another shape: {_some(match.unfit)}"
    elif match.found:
        said += f"; the rest would be random: {_some(match.missing)}"
    if match.surplus:
        said += f"; in the file and not used: {_some(match.surplus)}"
    if any("_flat_param" in name for name in match.surplus):
        return f"{said}; it is of FSDP, which joins tensors: save it with StateDictType.FULL_STATE_DICT"
    if any(".lora_" in name for name in match.surplus):
        return f"{said}; it is an adapter (LoRA), not a model: merge it into its model (`merge_and_unload`) and save that"
    if other:
        return f"{said}; it is a file for --model {other}"
    also = f" or {VISUAL}" if two_streams else ""
    advice = "is it a file for another architecture? --model must name the one it was trained with" + also
    return f"{said}; {advice}" + ("; --partial takes what fits" if match.found else "")


def _amount(match: Match) -> str:
    return f"{match.count} of {match.wanted} tensors" if match.missing else f"all {match.wanted} tensors"


def _some(names: Sequence[str]) -> str:
    """The first few of some names, and how many there are."""
    return ", ".join(shown(name) for name in names[:3]) + (f", … ({len(names)})" if len(names) > 3 else "")


def _other_library(name: str, size: int, states: Mapping[str, Mapping[str, Tensor]]) -> str:
    """What the network of the same name is called in the other library, if the file is for that one; else ""."""
    plain = name.removeprefix("torchvision/")
    other = plain if plain != name else f"torchvision/{plain}"
    try:
        with torch.device("meta"):
            network, _ = backbone(other, size=size)
    except (UnmaskError, RuntimeError):
        return ""
    return other if best_match(network, states).share >= ENOUGH else ""
