"""Float noise: how far one photo's raw probability moves with its batch, the threads and the runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from detector.tolerance import PROBABILITY
from export.errors import ParityError
from export.runners import Floats, Pixels, Runner, thread_counts

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
        """Slope up to which a calibration curve keeps that much noise within `PROBABILITY`."""
        return PROBABILITY.atol / self.bound


def measure_noise(runners: Sequence[Runner], images: Pixels) -> Noise:
    """Score every image with every runner: in batches of `BATCHES` on one thread, and in the largest on all threads.

    Raises `ParityError` when an answer is not a number.
    """
    ways = [(r, b, t) for r in runners for t in thread_counts() for b in BATCHES if t == 1 or b == max(BATCHES)]
    logits: list[Floats] = []
    raw_probs: list[Floats] = []
    for runner, batch, threads in tqdm(ways, desc="float noise", unit="way", leave=False):
        answers = runner.answers(images, batch, threads)
        if broken := int((~np.isfinite(answers.logit)).sum()):
            raise ParityError(f"{runner.name} gives {broken} of {len(images)} pictures a logit that is no finite number")
        logits.append(answers.logit)
        raw_probs.append(answers.raw_prob)
    return Noise(_spread(logits), _spread(raw_probs), len(ways))


def _spread(answers: list[Floats]) -> float:
    return float(np.max(np.ptp(np.stack(answers).astype(np.float64), axis=0)))
