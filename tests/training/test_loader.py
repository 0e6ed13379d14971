"""Order and variation of training photos: decided by the seed, whichever process loads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detector import ImageSpec
from training.data.augment import augmentation, augmented
from training.data.loader import CachedPhotos, EpochSampler, make_loader, normalise

LABELS = np.arange(20) % 2


@pytest.fixture
def photos(tmp_path: Path) -> CachedPhotos:
    """Twenty random pictures of 24 pixels."""
    np.save(tmp_path / "photos.npy", np.random.default_rng(0).integers(0, 256, (20, 24, 24, 3), dtype=np.uint8))
    return CachedPhotos(tmp_path / "photos.npy", LABELS)


def test_an_epoch_shows_each_photo_once_in_an_order_and_variation_of_its_own() -> None:
    sampler = EpochSampler(np.arange(5, 25), seed=1)
    epochs = []
    for epoch in (1, 2, 1):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    first, second, again = epochs
    assert first == again
    assert sorted(row for row, _ in first) == sorted(row for row, _ in second) == list(range(5, 25))
    assert [row for row, _ in first] != [row for row, _ in second]
    assert not {seed for _, seed in first} & {seed for _, seed in second}


def test_worker_processes_load_what_one_process_loads(photos: CachedPhotos) -> None:
    batches = [list(make_loader(photos, np.arange(20), batch_size=6, seed=3, workers=n)) for n in (0, 2)]
    assert len(batches[0]) == len(batches[1]) == 3  # the last odd batch is left out
    for alone, worked in zip(*batches, strict=True):
        for mine, theirs in zip(alone, worked, strict=True):
            assert torch.equal(mine, theirs)


def test_evaluation_sees_photos_in_order_and_as_they_are(photos: CachedPhotos) -> None:
    rows = np.array([3, 4, 9, 17])
    images, labels, shown = zip(*make_loader(photos, rows, batch_size=3), strict=True)
    np.testing.assert_array_equal(torch.cat(shown), rows)
    np.testing.assert_array_equal(torch.cat(labels), LABELS[rows])
    np.testing.assert_array_equal(torch.cat(images).permute(0, 2, 3, 1), np.load(photos.path)[rows])


def test_a_variation_depends_on_its_seed_and_leaves_the_callers_random_state_alone() -> None:
    image = torch.randint(0, 256, (3, 40, 40), dtype=torch.uint8)
    transform = augmentation("standard", 40)
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    one, two, other = (augmented(transform, image, seed) for seed in (7, 7, 8))
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert (one.shape, one.dtype) == (image.shape, torch.uint8)


def test_turning_brings_in_no_black_corners() -> None:
    grey = torch.full((3, 50, 50), 200, dtype=torch.uint8)
    darkest = min(int(augmented(augmentation("standard", 50), grey, seed).min()) for seed in range(40))
    assert darkest >= 120  # brightness and contrast alone reach 0.8 x 0.8 of 200


def test_normalising_is_what_the_spec_says() -> None:
    spec = ImageSpec(size=16, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.1))
    pixels = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 16, 16)
    out = normalise(pixels, spec)[0, :, 0, 0].tolist()
    assert out == pytest.approx([(0 - 0.5) / 0.5, (128 / 255 - 0.4) / 0.25, (1 - 0.3) / 0.1])


def test_the_crop_augmentation_shows_pixels_as_they_are_from_many_places_and_both_ways_round() -> None:
    image = torch.arange(3 * 32 * 32).reshape(3, 32, 32).remainder(251).to(torch.uint8)
    windows = {
        tuple(side[:, y : y + 28, x : x + 28].flatten().tolist())
        for side in (image, image.flip(2))
        for y in range(5)
        for x in range(5)
    }
    seen = {tuple(augmented(augmentation("crop", 32, 28), image, seed).flatten().tolist()) for seed in range(60)}
    assert seen <= windows
    assert len(seen) > 20
