"""Near: pairs of perceptual hashes that differ in few bits, found in large sets without comparing each with every other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Up to so many hashes all pairs are compared, which is exact. The radius in use is a quarter of the bits, and no index is
# exact there at less cost: bands that hold a match by the pigeonhole principle would be of four bits each.
ALL_PAIRS = 20_000
# Beyond, hashes are compared that share a cell: CELLS times the square root of n hashes are drawn, and every hash lies in the
# cells of the NEAREST of these. Measured with 1,900 cells: copies that were encoded again, halved or brightened share one in
# all cases, ones cropped by 2 % on every side in 99.9 %, by 3 % on two sides in 97 %. Random hashes that differ in 32 of 256
# bits do so in 99.8 %, in 48 bits in 97 %.
CELLS = 6
NEAREST = 16
LARGEST_CELL = 16_384  # a larger one is compared in pieces, so that equal hashes do not bring the square back
CANDIDATES = 64  # nearest ones that are kept of each row
_BLOCK = 1024
_HELD = 8_000_000  # pairs that are held before those found in several cells are made one
_ONES = np.array([value.bit_count() for value in range(256)], np.uint8)


def near_pairs(hashes: NDArray[np.uint8], radius: int, *, seed: int = 0) -> NDArray[np.int64]:
    """int64[m, 2]: rows i < j of uint8[n, bits / 8] whose hashes differ in at most `radius` bits, by i, the nearest first.

    Of each i only the `CANDIDATES` nearest are given. Exact, but for that, up to `ALL_PAIRS` rows; with more rows a pair is
    found where both lie in one of the same cells, and the time grows with n to the power of 1.5.
    """
    n = len(hashes)
    cells = iter([np.arange(n)]) if n <= ALL_PAIRS else _cells(hashes, np.random.default_rng(seed))
    full = np.zeros(n, bool)
    found = [np.empty(0, np.int64)]
    for cell in cells:
        for start in range(0, len(cell), max(LARGEST_CELL, ALL_PAIRS)):
            piece = cell[start : start + max(LARGEST_CELL, ALL_PAIRS)]
            found += [i * n + j for i, j in _within(hashes, piece, radius, full)]
        if sum(map(len, found)) > _HELD:
            found = [np.unique(np.concatenate(found))]
    i, j = np.divmod(np.unique(np.concatenate(found)), max(n, 1))
    distance = _distances(hashes, i, j)
    order = np.lexsort((j, distance, i))
    i, j = i[order], j[order]
    rank = np.arange(len(i)) - np.searchsorted(i, i)
    return np.stack([i, j], axis=1)[rank < CANDIDATES]


def _cells(hashes: NDArray[np.uint8], rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """The rows of each cell, sorted."""
    n = len(hashes)
    count = round(CELLS * n**0.5)
    centres = signs_of(hashes[np.sort(rng.choice(n, count, replace=False))]).T
    of = np.empty((n, NEAREST), np.int32)
    for start in range(0, n, _BLOCK):
        likeness = signs_of(hashes[start : start + _BLOCK]) @ centres
        of[start : start + _BLOCK] = np.argpartition(likeness, -NEAREST, axis=1)[:, -NEAREST:]
    order = np.argsort(of.ravel(), kind="stable")
    starts = np.searchsorted(of.ravel()[order], np.arange(1, count))
    yield from np.split(order // NEAREST, starts)


def _within(
    hashes: NDArray[np.uint8], rows: NDArray[np.int64], radius: int, full: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Near pairs among these rows, which are sorted. A row with more than `CANDIDATES` is `full` from then on: its nearest are
    given once, and of later cells it takes no part."""
    signs = signs_of(hashes[rows])
    bits = signs.shape[1]
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        own = np.flatnonzero(~full[block])
        alike = signs[start + own] @ signs[start:].T  # bits less twice the distance
        near = alike >= bits - 2 * radius
        near[:, : len(block)] &= np.arange(len(block)) > own[:, None]
        if np.count_nonzero(near) > CANDIDATES:
            for row in np.flatnonzero(near.sum(axis=1) > CANDIDATES):
                there = np.flatnonzero(near[row])
                near[row, there[np.argpartition(-alike[row, there], CANDIDATES)[CANDIDATES:]]] = False
                full[block[own[row]]] = True
        i, j = np.divmod(np.flatnonzero(near), near.shape[1])
        yield block[own[i]], rows[start + j]


def signs_of(hashes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32[n, bits] of 1 and -1, whose products BLAS adds up: several times as fast as counting bits in NumPy."""
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


def _distances(hashes: NDArray[np.uint8], i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
    """Differing bits of each pair."""
    steps = range(0, len(i), 1 << 20)
    parts = [_ONES[hashes[i[s : s + (1 << 20)]] ^ hashes[j[s : s + (1 << 20)]]].sum(axis=1, dtype=np.int64) for s in steps]
    return np.concatenate([np.empty(0, np.int64), *parts])
