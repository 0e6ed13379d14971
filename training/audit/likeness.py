"""Likeness: whether two thumbnails show one picture, either of them perhaps slightly cropped."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d

from training.audit.near import CANDIDATES
from training.data.facts import THUMB

# Copies correlate by 0.89 and more, different faces by less than 0.87 but for one pair of 1.6 million, drawn by one generator
# and alike to the eye. (Without the blur taken off, portraits merely composed alike correlate by 0.98, copies by 0.97.)
ALIKE = 0.87
MOST = 16  # matches that are looked for of each photo with those after it
_BLUR = 2.0  # standard deviation in pixels of the thumbnail
_SIDES = list(product((0.0, 0.02, 0.04), repeat=2))  # what a crop may have taken from two opposite sides
# Coarse details, uncropped, tell most pairs apart at a hundredth of the cost: of 2,200 copies that were found all correlate by
# 0.79 and more there, different faces with near hashes mostly by less than 0.75.
_COARSE = 0.7
_COARSE_BLURS = (1.5, 4.0)
_STEP = 3
_CHUNK = 1 << 13

Floats = NDArray[np.float32]


def alike_pairs(pairs: NDArray[np.int64], thumbnails: NDArray[np.uint8]) -> Iterator[tuple[int, int, float]]:
    """Those of the pairs that show one picture, with the correlation of their details.

    pairs: int64[m, 2], as `near_pairs` gives them. thumbnails: uint8[n, THUMB * THUMB]. Of a row at most `MOST` are given.
    """
    row, matched, own, crops = -1, 0, np.empty(0, np.float32), None
    candidates = np.bincount(pairs[:, 0], minlength=len(thumbnails))
    for i, j in _likely(pairs, thumbnails):
        if i != row:
            row, matched, own, crops = i, 0, _details(thumbnails[i])[0], None
        if matched == MOST:
            continue
        other = _details(thumbnails[j])[0]
        likeness = float(own @ other)
        # One of a crowd, such as a video's frames, is not laid over each of the others crop by crop.
        if likeness < ALIKE or candidates[i] < CANDIDATES:
            crops = _crops(thumbnails[i]) if crops is None else crops
            likeness = float(max((crops @ other).max(), (_crops(thumbnails[j]) @ own).max()))
        if likeness >= ALIKE:
            matched += 1
            yield i, j, min(likeness, 1.0)


def _likely(pairs: NDArray[np.int64], thumbnails: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """Those pairs whose coarse details correlate."""
    rows = np.unique(pairs)
    coarse = np.empty((len(rows), (THUMB // _STEP) ** 2), np.float16)
    for start in range(0, len(rows), _CHUNK):
        coarse[start : start + _CHUNK] = _coarse(thumbnails[rows[start : start + _CHUNK]])
    for start in range(0, len(pairs), _CHUNK):
        i, j = pairs[start : start + _CHUNK].T
        first, second = (coarse[np.searchsorted(rows, side)].astype(np.float32) for side in (i, j))
        for k in np.flatnonzero((first * second).sum(axis=1) >= _COARSE):
            yield int(i[k]), int(j[k])


def _coarse(thumbnails: NDArray[np.uint8]) -> Floats:
    fine, rough = (_blurring(sigma)[_STEP // 2 :: _STEP] for sigma in _COARSE_BLURS)
    pictures = thumbnails.reshape(-1, THUMB, THUMB).astype(np.float32)
    return _unit(fine @ pictures @ fine.T - rough @ pictures @ rough.T)


def _details(thumbnail: NDArray[np.uint8]) -> Floats:
    """float32[1, THUMB * THUMB]: the picture less its blur, with mean 0 and length 1; a plain one stays 0, like nothing."""
    picture, blur = thumbnail.reshape(1, THUMB, THUMB).astype(np.float32), _blurring(_BLUR)
    return _unit(picture - blur @ picture @ blur.T)


def _crops(thumbnail: NDArray[np.uint8]) -> Floats:
    """float32[81, THUMB * THUMB]: the details of each crop of the picture, scaled up again.

    Cropping, scaling and blurring are linear in rows and in columns, so two products make all 81.
    """
    picture = thumbnail.reshape(THUMB, THUMB).astype(np.float32)
    cut, blurred = _cuts()
    details = cut @ picture @ cut.T - blurred @ picture @ blurred.T
    n = len(_SIDES)
    return _unit(details.reshape(n, THUMB, n, THUMB).transpose(0, 2, 1, 3))


@cache
def _cuts() -> tuple[Floats, Floats]:
    """float32[9 * THUMB, THUMB] each: what cuts and scales one side of a picture in all ways, without and with the blur."""
    unit = Image.fromarray(np.eye(THUMB, dtype=np.float32))
    scaled = [
        np.asarray(unit.resize(unit.size, Image.Resampling.BILINEAR, box=(a * THUMB, 0, THUMB - b * THUMB, THUMB))).T
        for a, b in _SIDES
    ]
    return np.concatenate(scaled), np.concatenate([_blurring(_BLUR) @ cut for cut in scaled])


@cache
def _blurring(sigma: float) -> Floats:
    """float32[THUMB, THUMB]: what blurs the columns of a picture."""
    return gaussian_filter1d(np.eye(THUMB, dtype=np.float32), sigma, axis=0)


def _unit(details: Floats) -> Floats:
    """Rows with mean 0 and length 1."""
    flat = details.reshape(-1, details.shape[-2] * details.shape[-1])
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-3)
