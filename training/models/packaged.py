"""First weights from installed packages (`unmask[pretrained]`): nothing is fetched, and none of their code runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from detector.errors import FileError
from training.errors import WeightsNotInstalled
from training.presets import PACKAGED

if TYPE_CHECKING:
    from torch import Tensor

EXTRA = "unmask[pretrained]"


def weights_file(model: str) -> Path:
    """The file with the weights of one of `PACKAGED`. Raises `WeightsNotInstalled` where its package is not installed."""
    package = PACKAGED[model].package
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".pth" and (path := Path(str(file.locate()))).is_file():
            return path
    raise WeightsNotInstalled(
        f"pretrained weights of {model!r} are in the package {package}, which is not installed; install {EXTRA}, "
        "give a local file with --weights FILE, or start from random weights with --no-pretrained"
    )


def installed() -> list[str]:
    """Those of `PACKAGED` whose weights are on this machine."""
    found = []
    for model in PACKAGED:
        try:
            weights_file(model)
        except WeightsNotInstalled:
            continue
        found.append(model)
    return found


def packaged_weights(model: str) -> dict[str, Tensor]:
    """The ImageNet weights of one of `PACKAGED`, classifier and all, by timm's names for them.

    The package has names of its own, in timm's order. What each tensor is (a weight, a running mean …) and its shape are
    compared one by one. Raises `WeightsNotInstalled`, and `FileError` where the package holds something else.
    """
    import timm
    import torch

    from training.models.weight_files import read_states

    file, name = weights_file(model), PACKAGED[model].architecture
    theirs = read_states(file)[""]
    with torch.device("meta"):  # names and shapes alone
        own = timm.create_model(name).state_dict()
    if len(own) != len(theirs):
        raise FileError(f"{file.name}: holds {len(theirs)} tensors, and {name} has {len(own)}")
    for (wanted, empty), (given, tensor) in zip(own.items(), theirs.items(), strict=True):
        if empty.shape != tensor.shape or wanted.rpartition(".")[2] != given.rpartition(".")[2]:
            raise FileError(f"{file.name}: has {given} {tuple(tensor.shape)} where {name} has {wanted} {tuple(empty.shape)}")
    return dict(zip(own, theirs.values(), strict=True))
