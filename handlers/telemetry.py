"""What is told about each batch when it has been answered: its metrics and the records of its requests."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from handlers.forms.base import Body, Item, Request
from handlers.metrics import STAGES, Metrics
from handlers.records import RequestRecords
from handlers.requests import Answer


@dataclass
class Batch:
    """Times and scores of one batch while it is worked on.

    received: when the worker had it, in nanoseconds of the monotonic clock. seconds: by stage. runs: photos in each run of
    the model. scores: calibrated probabilities.
    """

    received: int = field(default_factory=time.monotonic_ns)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    runs: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, *, within: str | None = None) -> Iterator[None]:
        """Add the time of the block to a stage, and take it from the one that it lies within."""
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.seconds[name] += seconds
            if within:
                self.seconds[within] -= seconds


@dataclass(frozen=True)
class Handled:
    """A request with what was found on each of its photos and its answer."""

    item: Item
    request: Request
    bodies: Sequence[Body]
    answer: Answer

    def queue_seconds(self, received: int) -> float | None:
        """How long it was in TorchServe's frontend, None where that does not tell; a time in the future is not believed."""
        queued = self.item.queued
        return None if queued is None or queued > received else (received - queued) / 1e9

    @property
    def codes(self) -> list[str]:
        """The error codes of the photos that failed."""
        return [body["error"]["code"] for body in self.bodies if not body["ok"]]

    @property
    def kind(self) -> str:
        """v1, v2, explain or predict."""
        explained = self.item.explain or self.request.explain
        return self.request.form.protocol or ("explain" if explained else "predict")


class Telemetry:
    """Metrics and records of a worker.

    counting: a file; nothing is counted or written before it is there, so that a warm-up is no traffic. Without it
    everything counts.
    """

    def __init__(
        self, metrics: Metrics | None = None, records: RequestRecords | None = None, *, counting: Path | None = None
    ) -> None:
        self._metrics, self._records, self._counting = metrics or Metrics(), records or RequestRecords(), counting
        self._batches = count(1)

    def progress(self, requests: int) -> None:
        """Tell how many requests are being answered now."""
        self._metrics.progress(requests)

    def answered(self, batch: Batch, handled: Sequence[Handled], version: str) -> None:
        """Count an answered batch, and write its records. Nothing that is broken here fails a request."""
        if self._counts():
            queues = [each.queue_seconds(batch.received) for each in handled]
            self._metrics.observe(
                stages=batch.seconds,
                requests=sum(not each.item.closed for each in handled),
                queues=[seconds for seconds in queues if seconds is not None],
                runs=batch.runs,
                scores=batch.scores,
                verdicts=[body["prediction"] for each in handled for body in each.bodies if body["ok"]],
                errors=[code for each in handled for code in each.codes],
            )
            shared = {"batch": f"{os.getpid()}-{next(self._batches)}", "requests": len(handled)}
            times = {"version": version, "received": batch.received, "done": time.monotonic_ns()}
            self._records.write(
                _record(each, queue, batch.seconds) | times | shared for each, queue in zip(handled, queues, strict=True)
            )

    def _counts(self) -> bool:
        if self._counting is not None and self._counting.exists():
            self._counting = None
        return self._counting is None


def _record(each: Handled, queue: float | None, stages: Mapping[str, float]) -> dict[str, Any]:
    item, request, status, codes = each.item, each.request, each.answer.status, each.codes
    spent = {**({} if item.closed else stages), "queue": queue or 0.0}
    return {
        "job": item.job,
        "request_id": request.request_id,
        "trace": request.trace,
        "kind": each.kind,
        "status": status,
        "code": codes[0] if status != 200 else None,
        "photos": len(each.bodies),
        "failed": len(codes),
        "queued": None if queue is None else item.queued,
        "depth": item.depth,
        "stages": {stage: round(spent.get(stage, 0.0), 7) for stage in STAGES},
    }
