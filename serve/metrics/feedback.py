"""Labels that come back for photos that were scored: how often each was right is what calibration in production is."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import Metric

from detector.errors import UsageError
from serve.metrics.declared import LABELS, SupervisorMetric, family

BINS = 10
MOST = 10_000  # labels in one request
KEYS = {"version", "score", "label"}


@dataclass(frozen=True)
class Label:
    """What a photo turned out to be. version: of the model that scored it. score: the calibrated probability it was given."""

    version: str
    score: float
    label: str

    @classmethod
    def of(cls, values: Any, versions: Collection[str]) -> Label:
        """From JSON values. Raises `UsageError` that says what is wrong and what is accepted."""
        if not isinstance(values, dict) or values.keys() != KEYS:
            raise UsageError('a label is an object with "version", "score" and "label", and no other key')
        version, score, label = values["version"], values["score"], values["label"]
        if version not in versions:
            raise UsageError(f"version {version!r} is not served here; these are: {', '.join(versions)}")
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
            raise UsageError(f"score {score!r} is no number from 0 to 1")
        if label not in LABELS:
            raise UsageError(f"label {label!r} is neither {' nor '.join(LABELS)}")
        return cls(version, float(score), label)

    @property
    def bin(self) -> str:
        """The tenth that the score lies in, such as 0.9-1.0."""
        low = min(int(self.score * BINS), BINS - 1)
        return f"{low / BINS:.1f}-{(low + 1) / BINS:.1f}"


def read_labels(body: bytes, versions: Collection[str]) -> list[Label]:
    """The labels of a request: one JSON object, or a list of them. Raises `UsageError`, naming the first that is wrong."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise UsageError("the body is not JSON") from None
    if not isinstance(values, list):
        return [Label.of(values, versions)]
    if len(values) > MOST:
        raise UsageError(f"{len(values)} labels are too many for one request; {MOST} are accepted")
    labels = []
    for number, value in enumerate(values, 1):
        try:
            labels.append(Label.of(value, versions))
        except UsageError as error:
            raise UsageError(f"label {number}: {error.message}") from None
    return labels


class Feedback:
    """Counts labels by version, tenth of the score, and label; all known ones are there from the start."""

    def __init__(self, versions: Iterable[str]) -> None:
        bins = [Label("", i / BINS + 0.05, "").bin for i in range(BINS)]
        self._counts = Counter({(version, each, label): 0 for version in versions for each in bins for label in LABELS})
        self._scores = dict.fromkeys(((version, each) for version, each, _ in self._counts), 0.0)
        self._lock = threading.Lock()

    def add(self, labels: Iterable[Label]) -> None:
        """Count labels of served versions."""
        with self._lock:
            for label in labels:
                self._counts[label.version, label.bin, label.label] += 1
                self._scores[label.version, label.bin] += label.score

    def collect(self) -> Iterable[Metric]:
        """Both families."""
        counts, scores = family(SupervisorMetric.FEEDBACK), family(SupervisorMetric.FEEDBACK_SCORE)
        with self._lock:
            for names, count in self._counts.items():
                counts.add_metric(names, count)
            for pair, total in self._scores.items():
                scores.add_metric(pair, total)
        return [counts, scores]
