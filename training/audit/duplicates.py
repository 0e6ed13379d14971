"""Duplicates: which photos are the same file or the same picture, and what must therefore stay together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from detector.errors import UsageError
from training.audit.likeness import alike_pairs
from training.audit.near import near_pairs
from training.data.facts import THUMB, PhotoFacts, outline_bits
from training.data.photos import Photo, checked_pattern

# Measured on 1,800 faces and 1,200 composites. Copies that were re-encoded (down to quality 30), halved or brightened lie
# within 18 of 256 bits, ones cropped by 2 % on every side within 56. Different faces lie 60 or more apart, but for one pair
# in 120,000, so pictures nearer than FARTHEST are laid over each other and their details compared (`training.audit.likeness`).
FARTHEST = 64


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
    Of a picture with very many copies, such as a video's frames, each photo is matched with some of those after it
    (`training.audit.likeness.MOST`), which is enough to keep all together. Mirrored, turned and strongly cropped copies
    (more than some 3 % on each side) are not found.
    """
    first: dict[str, int] = {}
    matches = []
    for row, fact in enumerate(facts):
        if fact.problem is None and (earlier := first.setdefault(fact.sha256, row)) != row:
            matches.append(Match(earlier, row, True, 1.0))
    rows = sorted(first.values())
    thumbnails = np.frombuffer(b"".join(facts[row].thumbnail for row in rows), np.uint8).reshape(len(rows), THUMB * THUMB)
    near = near_pairs(np.packbits(outline_bits([facts[row] for row in rows]), axis=1), FARTHEST)
    matches += [Match(rows[i], rows[j], False, likeness) for i, j, likeness in alike_pairs(near, thumbnails)]
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
