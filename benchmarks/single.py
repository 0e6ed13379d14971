"""The price of a server: one photo at a time, through it and without it, in turn, so that the machine's moods meet both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from tqdm import tqdm

from benchmarks.checker import AnswerChecker
from benchmarks.closed_loop import check, run
from benchmarks.photos import Photo
from benchmarks.roofline import one_by_one
from detector.cpus import available_cpus
from detector.scorer import Scorer

SECONDS = 1.5  # of each turn
WARM_UP = 0.1  # seconds before this process's photos count
SETTLING = 8  # first answers of the server in a turn, which don't count


def in_turn(url: str, model: Path, photos: Sequence[Photo], known: Mapping[str, float], rounds: int) -> dict[str, Any]:
    """Median latencies in milliseconds of a server with one client and of this process, and their difference, as JSON values.

    Each round takes the server, then this process with one thread and with all, of which the faster counts. The difference
    is the median of the rounds' differences, with its quartiles. known: as `AnswerChecker` takes it.
    Raises `OSError` when the server is not there.
    """
    address = urlsplit(url)
    bodies = [photo.data for photo in photos]
    scorers = [Scorer(model, threads=n) for n in sorted({1, available_cpus()})]
    checker = AnswerChecker(known)
    served, local, failures = [], [], 0
    for number in tqdm(range(rounds + 1), desc="one photo at a time, in turn", unit="round"):
        requests = run(str(address.hostname), address.port or 80, bodies, clients=1, seconds=SECONDS)
        failures += sum(bool(problem) for problem in check(requests, photos, checker))
        alone = min(median(one_by_one(scorer, photos, warm_up=WARM_UP, seconds=SECONDS)) for scorer in scorers)
        if number:  # the first one warms up
            served.append(median(request.milliseconds for request in requests[SETTLING:] or requests))
            local.append(alone)
    differences = np.subtract(served, local)
    low, middle, high = np.percentile(differences, [25, 50, 75])
    return {
        "server": round(median(served), 3),
        "roofline": round(median(local), 3),
        "difference": round(float(middle), 3),
        "quartiles": [round(float(low), 3), round(float(high), 3)],
        "rounds": rounds,
        "failures": failures,
    }
