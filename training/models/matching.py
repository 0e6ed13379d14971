"""Which tensors of a file are which of a backbone: names under any prefix, in the forms that libraries give them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from training.models.weight_files import AVERAGED

_WRAPPERS = {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # may stand anywhere in a name
_COUNTER = "num_batches_tracked"  # of batch norm, which says nothing


@dataclass(frozen=True)
class Match:
    """What a state dict has for a network. where: the state dict's place in its file. prefix: before the names there.

    found: tensors by the network's own names, in its shapes. missing: the network's names that have none. unfit: its names
    whose tensor has another shape, as text. surplus: names in the file that are not used. wanted: how many there are to find.
    """

    where: str
    prefix: str
    found: dict[str, Tensor]
    missing: list[str]
    unfit: list[str]
    surplus: list[str]
    wanted: int

    @property
    def share(self) -> float:
        """Part of the network's tensors that was found."""
        return self.count / self.wanted

    @property
    def count(self) -> int:
        """How many of the network's tensors were found."""
        return self.wanted - len(self.missing)


def best_match(network: nn.Module, states: Mapping[str, Mapping[str, Tensor]]) -> Match:
    """The state dict that has most of a network's tensors; of several alike the first."""
    matches = [match_names(network, state, where) for where, state in states.items()]
    return max(matches, key=lambda match: match.count)


def match_names(network: nn.Module, state: Mapping[str, Tensor], where: str = "") -> Match:
    """Compare names and shapes, under the prefix that gives most; where timm can convert the names, with timm's help."""
    plain = {_without_wrappers(name): tensor for name, tensor in state.items()}
    direct = _compare(network, plain, where)
    if not direct.missing:
        return direct
    others = [_compare(network, converted, where) for converted in _converted(network, plain, direct.prefix)]
    return max([direct, *others], key=lambda match: match.count)


def _compare(network: nn.Module, state: Mapping[str, Tensor], where: str) -> Match:
    own = network.state_dict()
    names = {_canonical(_library_name(name)): name for name in own}
    counts: Counter[str] = Counter()
    for name, tensor in state.items():
        for start in (i for i in range(len(name)) if i == 0 or name[i - 1] == "."):
            mine = names.get(_canonical(name[start:]))
            if mine is not None and not mine.endswith(_COUNTER):
                counts[name[:start]] += 2 if own[mine].shape == tensor.shape else 1
    order = {prefix: number for number, prefix in enumerate(counts)}
    prefix = min(counts, key=lambda p: (-counts[p], not AVERAGED.search(p), order[p]), default="")
    found: dict[str, Tensor] = {}
    unfit: dict[str, str] = {}
    surplus = []
    for name, tensor in state.items():
        mine = names.get(_canonical(name[len(prefix) :])) if name.startswith(prefix) else None
        if mine is None:
            surplus.append(name)
        elif (fitting := _fitted(tensor, own[mine])) is not None:
            found[mine] = fitting
        else:
            unfit[mine] = f"{_library_name(mine)} is {_shape(tensor)} there and {_shape(own[mine])} here"
    wanted = [name for name in own if not name.endswith(_COUNTER)]
    missing = [name for name in wanted if name not in found]
    return Match(
        where, prefix, found, [_library_name(n) for n in missing], [*unfit.values()],
        [name for name in surplus if not name.endswith(_COUNTER)], len(wanted),
    )  # fmt: skip


def _fitted(tensor: Tensor, own: Tensor) -> Tensor | None:
    """The tensor as the network needs it; None where it can't be."""
    if tensor.is_floating_point() != own.is_floating_point() or tensor.is_quantized:
        return None
    if tensor.shape == own.shape:
        return tensor
    grey = own.dim() == 4 and own.shape[1] == 3 and tensor.shape == (own.shape[0], 1, *own.shape[2:])
    # A first layer for grey photos: of three equal channels it gives the same.
    return tensor.expand_as(own) / 3 if grey else None


def _converted(network: nn.Module, state: Mapping[str, Tensor], prefix: str) -> list[dict[str, Tensor]]:
    """The state dict as timm's own conversion of this network's public checkpoints gives it, and with the last norm renamed.

    The conversion also interpolates position embeddings to another input size.
    """
    inner = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    for old, new in (("norm.", "fc_norm."), ("fc_norm.", "norm.")):  # before or after pooling
        twins = {new + name.removeprefix(old): tensor for name, tensor in inner.items() if name.startswith(old)}
        inner = twins | inner
    model = getattr(network, "model", network)
    model = getattr(model, "model", model)  # of several maps
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None or not type(model).__module__.startswith("timm."):
        return [inner]
    try:
        converted = cast(Callable[..., Mapping[str, Any]], convert)(dict(inner), model)
    except Exception:  # made for public checkpoints, and fails on any other in its own way
        return [inner]
    return [inner, {name: tensor for name, tensor in converted.items() if isinstance(tensor, Tensor)}]


def _without_wrappers(name: str) -> str:
    """A name without what DistributedDataParallel, torch.compile, FSDP and averages put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS) or name


def _library_name(name: str) -> str:
    """The name that a tensor has in timm or torchvision, where we hold the network as `model`."""
    while name.startswith("model."):
        name = name.removeprefix("model.")
    return name


def _canonical(name: str) -> str:
    """A name as both forms of timm's models have it: `features_only` writes `stages_0` for `stages.0`."""
    return name.replace("_", ".")


def _shape(tensor: Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "one number"
    return shape if tensor.is_floating_point() else f"{str(tensor.dtype).removeprefix('torch.')} {shape}"
