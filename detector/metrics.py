"""How a Prometheus metric is declared: one value for each, which what emits it and its reference page both read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Declaration:
    """One metric. kind: Histogram, Counter or Gauge. name: a counter's without `_total`. buckets: a histogram's upper bounds.

    labels: names of its labels. values: those of the first label that are there from the start.
    """

    kind: str
    name: str
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    values: tuple[str, ...] = ()

    @property
    def sample(self) -> str:
        """The name that queries use: a counter's ends with `_total`."""
        return self.name + "_total" if self.kind == "Counter" else self.name
