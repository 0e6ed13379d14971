"""Duplicates: which photos are the same file or the same picture, and what must therefore stay together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from detector.errors import UsageError
from training.data.facts import THUMB, PhotoFacts, outline_bits
from training.data.photos import Photo, checked_pattern

# Measured on 1,800 faces and 1,200 composites. Copies that were re-encoded (down to quality 30), halved or brightened lie
# within 18 of 256 bits, ones cropped by 2 % on every side within 56. Different faces lie 60 or more apart, but for one pair
# in 120,000, so pictures nearer than FARTHEST are laid over each other and their details compared: copies then correlate by
# 0.89 and more, and different faces by less than 0.87 but for one pair of the 1.6 million, drawn by one generator and alike to
# the eye. (Without the blur taken off, two portraits that are merely composed alike correlate by 0.98, copies by 0.97.)
FARTHEST = 64
ALIKE = 0.87
_BLUR = 2.0  # standard deviation in pixels of the thumbnail
_CROPS = list(product((0.0, 0.02, 0.04), repeat=4))  # what a crop may have taken from each side
_BLOCK = 2048


@dataclass(frozen=True)
class Match:
    """Two rows, first < second, that hold the same file (exact) or the same picture; likeness: correlation of their
    details, at most 1."""

    first: int
    second: int
    exact: bool
    likeness: float


def find_matches(facts: Sequence[PhotoFacts]) -> list[Match]:
    """Exact and near duplicates among the readable photos, sorted by row.

    Of several files with the same bytes each is matched with the first, and the first alone is compared with other pictures.
    Mirrored, turned and strongly cropped copies (more than some 3 % on each side) are not found.
    """
    first: dict[str, int] = {}
    matches = []
    for row, fact in enumerate(facts):
        if fact.problem is None and (earlier := first.setdefault(fact.sha256, row)) != row:
            matches.append(Match(earlier, row, True, 1.0))
    rows = np.array(sorted(first.values()), np.int64)
    for i, j in _near(outline_bits([facts[row] for row in rows])):
        a, b = int(rows[i]), int(rows[j])
        likeness = _likeness(*(Image.frombytes("L", (THUMB, THUMB), facts[row].thumbnail) for row in (a, b)))
        if likeness >= ALIKE:
            matches.append(Match(a, b, False, likeness))
    return sorted(matches, key=lambda match: (match.first, match.second))


def group_names(photos: Sequence[Photo], pattern: str | None) -> list[str | None]:
    """The group of each photo: the pattern's first group, or its whole match, in the photo's name; None without a match.

    Raises `UsageError` for a pattern that is no regular expression or matches no photo.
    """
    if pattern is None:
        return [None] * len(photos)
    checked_pattern(pattern, "--group-by")
    found = [re.search(pattern, photo.name) for photo in photos]
    if not any(found):
        raise UsageError(f"--group-by {pattern!r}: matches no photo; paths look like {photos[0].name}")
    return [None if match is None else match[1] if match.re.groups else match[0] for match in found]


def group_numbers(n: int, matches: Sequence[Match], names: Sequence[str | None]) -> NDArray[np.int64]:
    """int64[n]: rows with the same number are duplicates of each other or of one named group, directly or by way of others."""
    first: dict[str, int] = {}
    edges = [(match.first, match.second) for match in matches]
    edges += [(first.setdefault(name, row), row) for row, name in enumerate(names) if name is not None]
    if not edges:
        return np.arange(n)
    a, b = np.array(edges, np.int64).T
    graph = coo_array((np.ones(len(edges)), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _near(bits: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs of rows, i < j, whose hashes differ in at most `FARTHEST` bits."""
    signs = bits.astype(np.float32) * 2 - 1
    pairs = []
    for start in range(0, len(signs), _BLOCK):
        distance = (signs.shape[1] - signs[start : start + _BLOCK] @ signs[start:].T) / 2
        i, j = np.nonzero(distance <= FARTHEST)
        pairs += [(int(a) + start, int(b) + start) for a, b in zip(i, j, strict=True) if a < b]
    return pairs


def _likeness(a: Image.Image, b: Image.Image) -> float:
    """The highest correlation of either picture's details with the other or a slight crop of it."""
    return max(float((_crops(x) @ _details(np.asarray(y, np.float32).reshape(1, -1))[0]).max()) for x, y in ((a, b), (b, a)))


def _crops(picture: Image.Image) -> NDArray[np.float32]:
    n = THUMB
    boxes = [(left * n, top * n, n - right * n, n - bottom * n) for left, top, right, bottom in _CROPS]
    resized = [np.asarray(picture.resize((n, n), Image.Resampling.BILINEAR, box=box), np.float32).ravel() for box in boxes]
    return _details(np.stack(resized))


def _details(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each picture less its own blur, with mean 0 and length 1; a plain one stays 0 and is like nothing."""
    pictures = rows.reshape(-1, THUMB, THUMB)
    details = (pictures - gaussian_filter(pictures, (0, _BLUR, _BLUR))).reshape(len(rows), -1)
    centred = details - details.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-3)
