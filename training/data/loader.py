"""Loading: batches of cached photos in an order, and with variations, that the seed alone decides."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from detector.cpus import available_cpus
from detector.spec import ImageSpec
from training.data.augment import Variation, augmentation, augmented
from training.data.pseudo_fakes import genuine, pseudo_fake

Item = tuple[Tensor, Tensor, Tensor]  # photo uint8[3, H, W], label float32[], row int64[]


class MappedRows(Dataset[Item]):
    """Rows of a .npy file; an item is asked for as (row, seed of its variation), a negative seed meaning none.

    labels: int64[n], of each row that can be asked for.
    """

    def __init__(self, path: Path, labels: NDArray[np.int64]) -> None:
        self.path = path
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def array(self) -> NDArray[Any]:
        """The file, read-only, opened in the process that reads, since a mapping travels to another one as a copy."""
        return np.load(self.path, mmap_mode="r")

    def item(self, values: Tensor, row: int) -> Item:
        """`values` with the row's label and number."""
        return values, torch.tensor(float(self.labels[row])), torch.tensor(row)


class CachedPhotos(MappedRows):
    """Rows of a photo cache.

    With `pseudo_fakes`, row `n + r` of a cache of n photos is the pseudo-fake of row `r`, and the photos are shown as
    `training.data.pseudo_fakes.genuine` says, by the same seed; where there is no variation, by the row.
    labels: int64[n], or int64[2 n] with pseudo-fakes.
    """

    def __init__(
        self,
        path: Path,
        labels: NDArray[np.int64],
        *,
        pseudo_fakes: bool = False,
        augment: str = "standard",
        crop: int | None = None,
    ) -> None:
        super().__init__(path, labels)
        self.pseudo_fakes = pseudo_fakes
        self.augment = augment
        self.crop = crop

    def __getitem__(self, key: tuple[int, int]) -> Item:
        row, seed = key
        image = torch.from_numpy(self.pixels(row, seed)).permute(2, 0, 1)
        if seed >= 0:
            image = augmented(self._transform, image, seed)
        return self.item(image, row)

    @cached_property
    def _transform(self) -> Variation:
        return augmentation(self.augment, self.array.shape[1], self.crop)

    def pixels(self, row: int, seed: int = -1) -> NDArray[np.uint8]:
        """uint8[H, W, 3]: what is in the row, before augmentation."""
        n = len(self.array)
        photo = np.array(self.array[row % n])
        if not self.pseudo_fakes:
            return photo
        return (pseudo_fake if row >= n else genuine)(photo, seed if seed >= 0 else row % n)


class EpochSampler(Sampler[tuple[int, int]]):
    """The rows of one part: shuffled anew in each epoch with a new variation of each photo, or in order and as they are.

    A row that is there twice is shown twice, in different variations.
    """

    def __init__(self, rows: NDArray[np.int64], seed: int | None = None) -> None:
        self.rows = rows
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next pass is; accelerate's loaders call it too."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if self.seed is None:
            return iter([(int(row), -1) for row in self.rows])
        rng = np.random.default_rng([self.seed, self.epoch])
        order, seeds = rng.permutation(self.rows), rng.integers(0, 2**62, len(self.rows))
        return iter([(int(row), int(seed)) for row, seed in zip(order, seeds, strict=True)])


def make_loader(
    photos: Dataset[Item],
    rows: NDArray[np.int64],
    *,
    batch_size: int,
    seed: int | None = None,
    workers: int = 0,
    pin: bool = False,
) -> DataLoader:
    """Batches of (uint8[N, 3, H, W], float32[N], int64[N]); with a seed for training, without the last odd batch."""
    return DataLoader(
        photos,
        batch_size=batch_size,
        sampler=EpochSampler(rows, seed),
        drop_last=seed is not None,  # a batch of one would break batch norm
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )


def default_workers(processes: int) -> int:
    """Loader processes for each of `processes` training ones, so that the next batch is varied while this one is learned.

    On a CPU too: each of the many small operations of a variation would otherwise wake all the threads that the network uses.
    """
    return max(0, min(4, available_cpus() // processes - 1))


def normalise(images: Tensor, spec: ImageSpec) -> Tensor:
    """uint8[N, 3, H, W] to what the network takes: float32, `(x / 255 - mean) / std` for each channel."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    # channels_last trains 1.7 to 2 times as fast on a CPU (SqueezeNet and EfficientNet-B0), and suits tensor cores.
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
