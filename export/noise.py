"""Float noise: how far one photo's raw probability moves with its batch, the threads and the road it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from export.errors import ParityError
from export.runners import Floats, Pixels, Road, thread_counts

ONE_ANSWER = 1e-3  # calibrated probabilities of one photo may differ by this much, whatever it travels with
SAFETY = 4  # the photos measured are a sample, and their noise is not the largest there is
FLOOR = 2.0**-22  # four units in the last place of a float32 just below 1: the runtimes' sigmoids alone differ by as much
BATCHES = (1, 2, 3, 8)


@dataclass(frozen=True)
class Noise:
    """Largest difference measured between two answers for one photo.

    logit, raw_prob: over all photos and all ways. ways: in how many ways each photo was scored.
    """

    logit: float
    raw_prob: float
    ways: int

    @property
    def bound(self) -> float:
        """Noise in the raw probability to reckon with.

        Sigmoid rises by at most 1/4, so noise in the logit bounds what a photo on its steepest part would show, where the
        photos measured may all be far from it.
        """
        return SAFETY * max(self.raw_prob, self.logit / 4, FLOOR)

    @property
    def max_slope(self) -> float:
        """Steepest calibration curve on which that much noise stays within one answer."""
        return ONE_ANSWER / self.bound


def measure_noise(roads: Sequence[Road], images: Pixels) -> Noise:
    """Score every image on every road: in batches of `BATCHES` on one thread, and in the largest on all threads.

    Raises `ParityError` when an answer is not a number.
    """
    ways = [(r, b, t) for r in roads for t in thread_counts() for b in BATCHES if t == 1 or b == max(BATCHES)]
    logits: list[Floats] = []
    raw_probs: list[Floats] = []
    for road, batch, threads in tqdm(ways, desc="float noise", unit="way", leave=False):
        answers = road.answers(images, batch, threads)
        if broken := int((~np.isfinite(answers.logit)).sum()):
            raise ParityError(f"{road.name} gives {broken} of {len(images)} pictures a logit that is no finite number")
        logits.append(answers.logit)
        raw_probs.append(answers.raw_prob)
    return Noise(_spread(logits), _spread(raw_probs), len(ways))


def _spread(answers: list[Floats]) -> float:
    return float(np.ptp(np.stack(answers).astype(np.float64), axis=0).max())
