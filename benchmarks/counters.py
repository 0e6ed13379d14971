"""Prometheus counters and histograms of a metrics page, and their differences between two readings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Histogram:
    """A Prometheus histogram: cumulative counts by upper bound in seconds, the last bound infinite, and the sum of values."""

    buckets: dict[float, float]
    sum: float

    @property
    def count(self) -> float:
        """Observations in all."""
        return self.buckets.get(float("inf"), 0.0)

    @property
    def mean(self) -> float:
        """Mean in seconds; NaN without observations."""
        return self.sum / self.count if self.count else float("nan")

    def __sub__(self, before: Histogram) -> Histogram:
        """What was observed since `before`."""
        buckets = {bound: n - before.buckets.get(bound, 0.0) for bound, n in self.buckets.items()}
        return Histogram(buckets, self.sum - before.sum)

    def quantile(self, q: float) -> float:
        """The q-quantile in seconds, 0 <= q <= 1; NaN without observations.

        Observations are taken to be spread evenly inside their bucket, and those in the last one count as its lower bound,
        as PromQL's histogram_quantile has it: true only to the width of a bucket.
        """
        if not self.count:
            return float("nan")
        rank, low, below = q * self.count, 0.0, 0.0
        for bound, n in sorted(self.buckets.items()):
            if n >= rank and n > below:
                return low if bound == float("inf") else low + (bound - low) * (rank - below) / (n - below)
            low, below = bound, n
        return low


@dataclass(frozen=True)
class Snapshot:
    """One reading of a metrics page."""

    families: dict[str, Metric]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read the Prometheus text format; raises `ValueError` for anything else."""
        return cls({family.name: family for family in text_string_to_metric_families(text)})

    def histogram(self, name: str, **labels: str) -> Histogram:
        """The histogram `name`, summed over all series that carry `labels`; empty when there is none."""
        samples = self._samples(name, lambda found: all(found.get(k) == v for k, v in labels.items()))
        buckets: defaultdict[float, float] = defaultdict(float)
        total = 0.0
        for suffix, found, value in samples:
            if suffix == "_bucket":
                buckets[float(found["le"])] += value
            elif suffix == "_sum":
                total += value
        return Histogram(dict(buckets), total)

    def counts(self, name: str, label: str) -> dict[str, float]:
        """The counter `name` by the values of `label`, summed over all others."""
        totals: defaultdict[str, float] = defaultdict(float)
        for suffix, found, value in self._samples(name, lambda found: label in found):
            if suffix == "_total":
                totals[found[label]] += value
        return dict(totals)

    def values(self, name: str, label: str) -> list[str]:
        """The values that `label` takes in the family `name`, sorted."""
        return sorted({found[label] for _, found, _ in self._samples(name, lambda found: label in found)})

    def _samples(self, name: str, wanted: Callable[[Labels], bool]) -> Iterable[tuple[str, Labels, float]]:
        family = self.families.get(name)
        for sample in family.samples if family else ():
            if wanted(sample.labels):
                yield sample.name.removeprefix(name), sample.labels, sample.value


def added(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Increases between two readings of a counter, without those that are zero."""
    return {key: n - before.get(key, 0.0) for key, n in after.items() if n != before.get(key, 0.0)}
