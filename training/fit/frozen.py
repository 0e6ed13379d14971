"""A backbone that stays as it is: what it says of each photo, computed once and kept on disk beside the decoded photos."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from detector.spec import ImageSpec
from training.data.cache import PhotoCache, new_array
from training.data.loader import Item, MappedRows, normalise
from training.models.build import ModelConfig
from training.models.networks import PooledNet

VERSION = 1  # a change of the networks that moves features makes older files stale
_BATCH = 16
_VIEWS = 2  # the photo and its mirror image


class FrozenFeatures(MappedRows):
    """Rows of a file of features; what varies is whether it is the photo or its mirror image."""

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """Features float32[C], label float32[], row int64[]."""
        row, seed = key
        return self.item(torch.from_numpy(np.array(self.array[row, seed % _VIEWS if seed >= 0 else 0])), row)


def open_features(
    network: PooledNet,
    config: ModelConfig,
    cache: PhotoCache,
    spec: ImageSpec,
    device: torch.device,
    *,
    progress: bool = False,
) -> Path:
    """The file of `network`'s pooled features of the cached photos, made where the cache's folder has none.

    It is a .npy of float32[N, 2, C]: of each photo and of its mirror image, computed in full precision on `device`. It is
    found by the photos, the backbone's weights and how they are pooled, so it is never stale.
    Raises `FileError` when the disk has no room for it.
    """
    path = cache.path.with_name(f"{cache.path.stem}-{_identity(network, config)}.npy")
    if path.is_file():
        return path
    network.eval()
    pixels = cache.pixels()
    shape = (len(pixels), *_features(network, pixels[:1], spec, device).shape[1:])
    with (
        new_array(path, np.float32, shape, "features") as kept,
        tqdm(total=len(pixels), desc="features", unit="photo", disable=not progress, leave=False) as bar,
    ):
        for start in range(0, len(pixels), _BATCH):
            batch = pixels[start : start + _BATCH]
            kept[start : start + len(batch)] = _features(network, batch, spec, device)
            bar.update(len(batch))
    return path


def _features(network: PooledNet, pixels: NDArray[np.uint8], spec: ImageSpec, device: torch.device) -> NDArray[np.float32]:
    with torch.inference_mode():
        x = normalise(torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).to(device), spec)
        views: list[Tensor] = [network.pooled(x), network.pooled(x.flip(3))]
        return torch.stack(views, dim=1).float().cpu().numpy()


def _identity(network: PooledNet, config: ModelConfig) -> str:
    shape = [VERSION, config.name, config.multiscale, config.gram, config.zoom]
    digest = hashlib.sha256(json.dumps(shape).encode())
    for name, tensor in sorted(network.features.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]
