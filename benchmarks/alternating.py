"""Measure a server and the roofline alternately, so that changes of the machine's speed affect both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from tqdm import tqdm

from benchmarks.load.checker import AnswerChecker
from benchmarks.load.closed_loop import Request, check, run
from benchmarks.photos import Photo
from benchmarks.roofline import Design, one_by_one, throughput
from detector.cpus import available_cpus
from detector.scorer import Scorer

SECONDS = 1.5  # of each measurement with one photo at a time
WARM_UP = 0.1  # seconds of the roofline that are not counted
SETTLING = 8  # first answers of the server in each round that are not counted
SATURATED_SECONDS, SATURATED_SETTLING = 3.0, 0.5


@dataclass(frozen=True)
class AlternatingComparison:
    """Pairs of measurements, of the server and then of the roofline in this process, in `rounds` rounds.

    url: of the server. model: file that the roofline runs. known: as for `AnswerChecker`.
    Both methods return JSON values and raise `OSError` when nothing listens at `url`.
    """

    url: str
    model: Path
    photos: Sequence[Photo]
    known: Mapping[str, float]
    rounds: int

    def single_photo(self) -> dict[str, Any]:
        """Median latencies of the server with one client and of this process, in milliseconds, and their difference.

        In this process the faster of one thread and all threads counts. The difference is the median of the rounds'
        differences, with its quartiles.
        """
        scorers = [Scorer(self.model, threads=n) for n in sorted({1, available_cpus()})]

        def served(requests: Sequence[Request]) -> float:
            return median(request.milliseconds for request in requests[SETTLING:] or requests)

        def alone() -> float:
            return min(median(one_by_one(scorer, self.photos, warm_up=WARM_UP, seconds=SECONDS)) for scorer in scorers)

        return self._alternate("one photo at a time", 1, SECONDS, served, alone, "difference", np.subtract)

    def saturated(self, clients: int, design: Design) -> dict[str, Any]:
        """Median requests per second of the server with `clients` clients, photos per second of `design`, and their ratio.

        The ratio is the median of the rounds' ratios, with its quartiles.
        """

        def served(requests: Sequence[Request]) -> float:
            start = min(request.started for request in requests) + SATURATED_SETTLING
            ends = np.array([request.started + request.milliseconds / 1e3 for request in requests])
            return float(((ends >= start) & (ends < start + SATURATED_SECONDS)).sum() / SATURATED_SECONDS)

        def alone() -> float:
            return float(throughput(self.model, self.photos, design, seconds=SATURATED_SECONDS)["photos_per_second"])

        seconds = SATURATED_SETTLING + SATURATED_SECONDS
        return {"clients": clients} | self._alternate("saturated", clients, seconds, served, alone, "ratio", np.divide)

    def _alternate(
        self,
        what: str,
        clients: int,
        seconds: float,
        served: Callable[[Sequence[Request]], float],
        local: Callable[[], float],
        name: str,
        compare: np.ufunc,
    ) -> dict[str, Any]:
        address = urlsplit(self.url)
        checker = AnswerChecker(self.known)
        bodies = [photo.data for photo in self.photos]
        pairs, failures = [], 0
        for number in tqdm(range(self.rounds + 1), desc=f"{what}, alternately", unit="round"):
            requests = run(str(address.hostname), address.port or 80, bodies, clients=clients, seconds=seconds)
            failures += sum(bool(problem) for problem in check(requests, self.photos, checker))
            pair = served(requests), local()
            if number:  # the first round is a warm-up
                pairs.append(pair)
        ours, roofline = np.array(pairs).T
        low, middle, high = np.percentile(compare(ours, roofline), [25, 50, 75])
        return {
            "server": round(median(ours), 3),
            "roofline": round(median(roofline), 3),
            name: round(float(middle), 3),
            "quartiles": [round(float(low), 3), round(float(high), 3)],
            "rounds": self.rounds,
            "failures": failures,
        }
