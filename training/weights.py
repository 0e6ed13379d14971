"""Where a network's first weights come from: the hub, a local file, or chance."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from detector.errors import FileProblem
from training.models import DetectorNet, ModelConfig, build_model, load_backbone

HUB_TIMEOUT = 5.0  # seconds to wait for an answer before saying that the hub is out of reach


def initial_model(config: ModelConfig, *, weights: str | None, pretrained: bool) -> DetectorNet:
    """The network before training: backbone from `weights`, else from the hub if `pretrained`, else random; random head.

    Raises `HubUnreachable` within seconds when the hub does not answer and holds no copy here, `FileProblem` when the file is
    not one of weights, `UsageError` when it is for another architecture.
    """
    if weights is not None:
        model = build_model(config)
        load_backbone(model, read_weights(Path(weights)), Path(weights).name)
        return model
    if not pretrained:
        return build_model(config)
    with _impatient_hub():
        return build_model(config, pretrained=True)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or a torch file, without running code from it."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, pickle, zip and torch each raise their own
        raise FileProblem(
            f"{path.name}: is not a file of weights that loads without running code ({type(error).__name__})"
        ) from None
    # Training scripts wrap the state dict in one of these; our own checkpoints in the last.
    for key in ("state_dict", "model_state_dict", "model", "weights"):
        if isinstance(values, dict) and isinstance(values.get(key), dict) and _is_state_dict(values[key]):
            return values[key]
    if not isinstance(values, dict) or not _is_state_dict(values):
        raise FileProblem(f"{path.name}: holds no state dict (names with tensors)")
    return values


def _is_state_dict(values: dict) -> bool:
    return bool(values) and all(isinstance(v, Tensor) for v in values.values())


@contextmanager
def _impatient_hub() -> Iterator[None]:
    """Use only what is cached when the hub does not answer at once.

    huggingface_hub retries each of timm's file names five times with growing pauses (52 s without a network), and torch.hub
    has no timeout at all.
    """
    from huggingface_hub import constants, get_session

    offline, timeout = constants.HF_HUB_OFFLINE, socket.getdefaulttimeout()
    if not offline:
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
        except Exception:  # httpx's and requests' errors, by the release of huggingface_hub
            constants.HF_HUB_OFFLINE = True
    socket.setdefaulttimeout(HUB_TIMEOUT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        socket.setdefaulttimeout(timeout)
