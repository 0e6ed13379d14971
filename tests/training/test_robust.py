"""Robust augmentation: half of the squares as they are, the others as photos arrive that went through other hands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from training.data.augment import augmentation, augmented
from training.data.robust import CHANGED


@pytest.fixture(scope="module")
def photo() -> Tensor:
    """A picture of 96 pixels with patches of colour and fine grain: uint8[3, 96, 96]."""
    rng = np.random.default_rng(0)
    patches = rng.integers(60, 196, (3, 12, 12)).repeat(8, axis=1).repeat(8, axis=2)
    return torch.from_numpy((patches + rng.normal(0, 12, (3, 96, 96))).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def seen(photo: Tensor) -> list[Tensor]:
    """Four hundred variations: enough that each change is among them, alone and with others."""
    transform = augmentation("robust", 96, 64)
    return [augmented(transform, photo, seed) for seed in range(400)]


def _grain(square: Tensor) -> float:
    return float((square[:, :, 1:].float() - square[:, :, :-1].float()).abs().mean())


def test_squares_keep_their_size_and_type_and_the_seed_alone_decides_them(photo: Tensor, seen: list[Tensor]) -> None:
    assert {(tuple(square.shape), square.dtype) for square in seen} == {((3, 64, 64), torch.uint8)}
    transform = augmentation("robust", 96, 64)
    torch.manual_seed(1)
    assert all(torch.equal(augmented(transform, photo, seed), seen[seed]) for seed in range(20))
    assert len({square.numpy().tobytes() for square in seen}) > 350


def test_half_of_the_squares_keep_every_pixels_value(photo: Tensor, seen: list[Tensor]) -> None:
    places = range(photo.shape[1] - 63)
    windows = {
        side[:, y : y + 64, x : x + 64].numpy().tobytes() for side in (photo, photo.flip(2)) for y in places for x in places
    }
    kept = sum(square.numpy().tobytes() in windows for square in seen)
    assert 1 - CHANGED - 0.1 < kept / len(seen) < 1 - CHANGED + 0.25  # some that are to be changed meet no change


def test_the_others_lose_grain_colour_or_brightness_each_in_its_share(photo: Tensor, seen: list[Tensor]) -> None:
    own = _grain(photo)
    smooth = sum(_grain(square) < 0.8 * own for square in seen)
    grey = sum(int((square.amax(0).int() - square.amin(0).int()).max()) == 0 for square in seen)
    light = [float(square.float().mean() / photo.float().mean()) for square in seen]
    assert 0.08 < smooth / len(seen) < 0.5
    assert 0.01 < grey / len(seen) < 0.12
    assert sum(abs(share - 1) > 0.1 for share in light) > 0.05 * len(seen)
    assert 0.6 < min(light) < max(light) < 1.5


def test_a_square_as_large_as_the_photo_can_be_changed_too(photo: Tensor) -> None:
    transform = augmentation("robust", 96, 96)
    squares = [augmented(transform, photo, seed) for seed in range(40)]
    assert {tuple(square.shape) for square in squares} == {(3, 96, 96)}
    assert any(not torch.equal(square, photo) and not torch.equal(square, photo.flip(2)) for square in squares)
