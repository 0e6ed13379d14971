"""Near duplicates: the search against a brute-force reference, and what bounds it where everything is alike."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import encode
from training.audit import near
from training.audit.duplicates import FARTHEST, find_matches, group_numbers
from training.audit.likeness import ALIKE, MOST
from training.audit.near import ALL_PAIRS, CANDIDATES, near_pairs
from training.data.facts import THUMB, PhotoFacts, facts_of

Pairs = set[tuple[int, int]]


def brute_force(hashes: NDArray[np.uint8], radius: int) -> Pairs:
    bits = np.unpackbits(hashes, axis=1).astype(bool)
    return {(i, i + 1 + int(j)) for i in range(len(bits)) for j in np.flatnonzero((bits[i + 1 :] ^ bits[i]).sum(1) <= radius)}


def flipped(hashes: NDArray[np.uint8], most: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The hashes with up to `most` bits of each flipped."""
    bits = np.unpackbits(hashes, axis=1)
    for row in bits:
        row[rng.permutation(bits.shape[1])[: rng.integers(1, most + 1)]] ^= 1
    return np.packbits(bits, axis=1)


def drawn(kind: str, n: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Hashes without any order, or around a few hundred centres, each a tenth copies of others within the radius."""
    if kind == "random":
        own = rng.integers(0, 256, (n, 32), dtype=np.uint8)
    else:
        own = flipped(rng.integers(0, 256, (n // 8, 32), dtype=np.uint8)[rng.integers(0, n // 8, n)], 100, rng)
    return np.concatenate([own, flipped(own[rng.permutation(n)[: n // 10]], 80, rng)])[rng.permutation(n + n // 10)]


@pytest.mark.parametrize("kind", ["random", "clustered"])
@pytest.mark.parametrize("n", [0, 1, 2, 2000])
def test_all_pairs_within_the_radius_are_found_and_no_others(kind: str, n: int) -> None:
    hashes = drawn(kind, n, np.random.default_rng(n)) if n > 2 else np.zeros((n, 32), np.uint8)
    pairs = [tuple(pair) for pair in near_pairs(hashes, FARTHEST).tolist()]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute_force(hashes, FARTHEST)
    assert len(pairs) > n // 20 or n < 2


@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_cells_find_what_lies_near_and_nothing_that_does_not(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = drawn(kind, 2000, np.random.default_rng(7))
    expected = brute_force(hashes, FARTHEST)
    near_ones = brute_force(hashes, 32)
    monkeypatch.setattr(near, "ALL_PAIRS", 1000)
    found = {tuple(pair) for pair in near_pairs(hashes, FARTHEST).tolist()}
    assert found <= expected
    assert len(found & near_ones) >= 0.99 * len(near_ones) > 0
    assert len(found) >= 0.9 * len(expected)


def test_a_large_set_is_not_compared_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    signs = near.signs_of

    class Counted(np.ndarray):
        """Signs whose products are counted."""

        def __matmul__(self, other: NDArray[np.float32]) -> NDArray[np.float32]:
            compared.append(self.shape[0] * other.shape[1])
            return np.asarray(self) @ np.asarray(other)

    monkeypatch.setattr(near, "signs_of", lambda hashes: signs(hashes).view(Counted))
    monkeypatch.setattr(near, "ALL_PAIRS", 1000)
    work = {}
    for n in (4000, 16000):
        compared.clear()
        near_pairs(np.random.default_rng(n).integers(0, 256, (n, 32), dtype=np.uint8), FARTHEST)
        work[n] = sum(compared)
    assert np.log(work[16000] / work[4000]) / np.log(4) < 1.65


@pytest.mark.parametrize("all_pairs", [ALL_PAIRS, 1000])
@pytest.mark.parametrize("most", [1, 8])
def test_a_crowd_of_equal_hashes_gives_some_pairs_of_each_and_stays_connected(
    all_pairs: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near, "ALL_PAIRS", all_pairs)
    monkeypatch.setattr(near, "LARGEST_CELL", all_pairs)
    hashes = flipped(np.full((3000, 32), 0x5A, np.uint8), most, np.random.default_rng(3))
    pairs = near_pairs(hashes, FARTHEST)
    assert np.bincount(pairs[:, 0]).max() == CANDIDATES
    parent = np.arange(3000)
    for i, j in pairs[::-1]:
        parent[i] = max(parent[i], parent[j])
    if all_pairs > 3000:
        assert (parent == 2999).all()


def frames(n: int) -> list[PhotoFacts]:
    """Facts of `n` frames of one still: the same picture with a little noise, each another file."""
    rng = np.random.default_rng(0)
    still = np.asarray(Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).resize((THUMB, THUMB)), np.float32)
    bits = np.full((n, 32), 0x3C, np.uint8)
    thumbs = (still + rng.normal(0, 2, (n, THUMB, THUMB))).clip(0, 255).astype(np.uint8)
    return [
        PhotoFacts(f"{i:064x}", 1000 + i, outline=bits[i].tobytes().hex(), thumbnail=thumbs[i].tobytes()) for i in range(n)
    ]


def test_frames_of_one_video_are_one_group_with_a_bounded_number_of_matches() -> None:
    matches = find_matches(frames(600))
    assert max(np.bincount([match.first for match in matches])) == MOST
    assert len(set(group_numbers(600, matches, [None] * 600))) == 1


def test_plain_pictures_are_like_nothing_and_none_at_all_have_no_matches() -> None:
    plain = [
        PhotoFacts(f"{grey:064x}", 100, outline="00" * 32, thumbnail=bytes([grey] * THUMB * THUMB)) for grey in range(40, 60)
    ]
    assert find_matches(plain) == []
    assert find_matches([]) == find_matches([PhotoFacts("0" * 64, 0, problem="is empty")]) == []


def test_a_copy_is_as_like_as_its_crop_laid_over_it() -> None:
    rng = np.random.default_rng(5)
    layers = [Image.fromarray(rng.integers(0, 256, (k, k, 3), dtype=np.uint8)).resize((200, 200)) for k in (6, 20, 40)]
    photo = Image.fromarray(np.mean([np.asarray(layer, np.float32) for layer in layers], axis=0).astype(np.uint8))
    cropped = photo.crop((4, 4, 196, 196))
    facts = [facts_of(encode(image, "JPEG", quality=90), f"{i:064x}") for i, image in enumerate((photo, cropped))]
    (match,) = find_matches(facts)
    assert (match.first, match.second, match.exact) == (0, 1, False)
    assert ALIKE < match.likeness <= 1
