"""The pointing game: does a detector's heatmap point at what was forged, where it is known what was?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from detector.decode.batches import decoded_batches
from detector.errors import UnmaskError
from detector.packed import Readable
from detector.spec import ImageSpec
from training.data.pseudo_fakes import pseudo_fake, self_blend
from training.evaluation.metrics import wilson
from training.evaluation.mistakes import Heatmaps

FORGED = 0.1  # of the strongest blending: where a mask is weaker, photo and forgery hardly differ
_BATCH = 16


def play(heatmaps: Heatmaps, spec: ImageSpec, real: Sequence[Readable], *, seed: int = 0) -> dict[str, Any]:
    """Score of `heatmaps` on a pseudo-fake of each of the `real` photos, as JSON values.

    A hit is a map whose largest value, what speaks most for fake, lies in a cell that touches the blended region (Zhang et
    al., arXiv 1608.00507; their tolerance of 15 pixels is the cell here). `score` is the hits' share with its 95 %
    interval. `centred` is that of the maps less their mean: a network that pads its input sees edges on every photo, and
    what is the same on all of them says nothing about one. `chance` is the share of a cell picked at random, `photos` how
    many were readable.
    """
    maps, forged = [], []
    with tqdm(total=len(real), desc="pointing game", unit="photo", leave=False) as bar:
        for start, batch in zip(range(0, len(real), _BATCH), decoded_batches(real, spec, _BATCH), strict=True):
            photos = [
                (decoded.pixels, int(np.random.default_rng([seed, number]).integers(2**31)))
                for number, decoded in enumerate(batch, start)
                if not isinstance(decoded, UnmaskError)
            ]
            if photos:
                found = heatmaps(np.stack([pseudo_fake(*photo) for photo in photos]))
                maps += list(found)
                forged += [_cells(self_blend(*photo).mask, found.shape[1:]) for photo in photos]
            bar.update(len(batch))
    if not maps:
        return {"photos": 0, "score": None, "centred": None, "chance": None}
    heat, where = np.stack(maps), np.stack(forged)
    return {
        "photos": len(heat),
        "score": wilson(_hits(heat, where), len(heat)),
        "centred": wilson(_hits(heat - heat.mean(axis=0, dtype=np.float32), where), len(heat)),
        "chance": float(where.mean()),
    }


def _hits(heat: NDArray[np.float32], where: NDArray[np.bool_]) -> int:
    flat = where.reshape(len(where), -1)
    return int(flat[np.arange(len(flat)), heat.reshape(len(heat), -1).argmax(axis=1)].sum())


def _cells(mask: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of the map's cells touch the region where the mask is strong, bool of `shape`."""
    forged = mask > FORGED * np.max(mask)
    cells = np.zeros(shape, bool)
    rows, columns = np.nonzero(forged)
    cells[rows * shape[0] // mask.shape[0], columns * shape[1] // mask.shape[1]] = True
    return cells
