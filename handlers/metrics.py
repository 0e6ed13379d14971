"""What the handler measures, declared once each: Prometheus histograms in seconds, counters and gauges."""

from __future__ import annotations

import logging
import math
import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from detector.manifest import Manifest
from detector.metrics import Declaration
from handlers.errors import answered_errors

log = logging.getLogger("unmask")
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.0075),
    *(0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
STAGES = ("queue", "read", "decode", "inference", "postprocess", "explain")
BINS = tuple(k / 20 for k in range(21))  # of scores, where the manifest has no reference
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# prometheus_client writes through mapped files that grow sparse: on a full disk that ends the process (SIGBUS) instead of
# raising. Ours have their full size before they are mapped.
_FILES, _FILE_BYTES = ("counter", "histogram", "gauge_livesum"), 1 << 17


class Metric(Enum):
    """All metrics of a worker. The supervisor sums them over the workers."""

    STAGE_SECONDS = Declaration(
        "Histogram",
        "unmask_stage_seconds",
        "Time that a request spent in a stage, its batch's other requests included; a stage it did not have is left out.",
        ("stage",),
        SECONDS,
        STAGES,
    )
    PHOTOS = Declaration(
        "Counter",
        "unmask_photos",
        "Photos, by what came of them.",
        ("outcome",),
        values=("real", "fake", "uncertain", "error"),
    )
    PHOTO_ERRORS = Declaration(
        "Counter",
        "unmask_photo_errors",
        "Photos that failed, by error code; a request that can't be read is one.",
        ("code",),
        values=tuple(error.code for error in answered_errors()),
    )
    BATCH_PHOTOS = Declaration("Histogram", "unmask_batch_photos", "Photos in one run of the model.", buckets=BATCHES)
    INFERENCES = Declaration("Counter", "unmask_inferences", "Runs of the model.")
    SCORE = Declaration(
        "Histogram",
        "unmask_score",
        "Calibrated probability of each photo, in the bins of the model's reference scores.",
        ("version",),
        BINS,
    )
    IN_PROGRESS = Declaration("Gauge", "unmask_requests_in_progress", "Requests in the workers now.")


class Metrics:
    """The metrics of one worker, in prometheus_client's multiprocess mode.

    folder: for its files; without one nothing is measured. version: of the model. bins: edges of the scores' bins. When the
    files can't be written, or are removed, requests go on; the files are made anew as soon as that is possible.
    """

    def __init__(self, folder: Path | None = None, *, version: str = "", bins: Sequence[float] = BINS) -> None:
        self._folder, self._version, self._bins = folder, version, tuple(bins)
        self._instruments: dict[Metric, Any] = {}
        self._broken = False
        self._in_progress = 0
        self._ready()

    def progress(self, requests: int) -> None:
        """Tell how many requests are in the worker now."""
        self._in_progress = requests
        if self._instruments:
            self._instruments[Metric.IN_PROGRESS].set(requests)

    def observe(
        self,
        *,
        stages: Mapping[str, float],
        requests: int,
        queues: Sequence[float] = (),
        runs: Sequence[int] = (),
        scores: Sequence[float] = (),
        verdicts: Sequence[str] = (),
        errors: Sequence[str] = (),
    ) -> None:
        """Add a batch. stages: seconds of each, for all `requests` alike. queues: seconds of each request.

        runs: photos in each run of the model. verdicts, errors: predictions and error codes of the photos.
        """
        if not self._ready():
            return
        stage, outcome = self._instruments[Metric.STAGE_SECONDS], self._instruments[Metric.PHOTOS]
        for name, seconds in stages.items():
            if seconds > 0:
                stage.labels(name).add(seconds, requests)
        for seconds in queues:
            stage.labels("queue").add(seconds)
        for photos in runs:
            self._instruments[Metric.BATCH_PHOTOS].add(photos)
        self._instruments[Metric.INFERENCES].inc(len(runs))
        distribution = self._instruments[Metric.SCORE].labels(self._version)
        for score in scores:
            # A bin has its lower edge in the reference, as numpy counts, and its upper one in Prometheus.
            distribution.add(min(1.0, math.nextafter(score, math.inf)))
        for label in set(verdicts):
            outcome.labels(label.lower()).inc(verdicts.count(label))
        if errors:
            outcome.labels("error").inc(len(errors))
        for code in errors:
            self._instruments[Metric.PHOTO_ERRORS].labels(code).inc()

    def _ready(self) -> bool:
        """Whether there is something to write to; made here where it is not, or no longer."""
        if self._folder is None:
            return False
        if self._instruments and self._files()[0].exists():
            return True
        try:
            self._open(self._folder)
        except Exception as error:
            self._instruments = {}
            if not self._broken:
                log.warning("%s: metrics can't be written, and requests are answered without: %s", self._folder, error)
            self._broken = True
            return False
        if self._broken:
            log.warning("%s: metrics are written again", self._folder)
        self._broken = False
        return True

    def _files(self) -> list[Path]:
        assert self._folder is not None
        return [self._folder / f"{kind}_{os.getpid()}.db" for kind in _FILES]

    def _open(self, folder: Path) -> None:
        import prometheus_client
        from prometheus_client import values

        folder.mkdir(exist_ok=True)
        if self._instruments:
            values.ValueClass.close_all_files()
        for path in self._files():
            with path.open("ab") as file:  # a worker before this one may have had the same process id
                file.write(bytes(max(0, _FILE_BYTES - file.tell())))
        registry = prometheus_client.CollectorRegistry()  # its own, so that a second handler in one process is no clash
        self._instruments = {
            metric: _instrument(prometheus_client, registry, metric.value, self._bins if metric is Metric.SCORE else None)
            for metric in Metric
        }
        self._instruments[Metric.SCORE].labels(self._version)
        self._instruments[Metric.IN_PROGRESS].set(self._in_progress)


def open_metrics(manifest: Manifest) -> Metrics:
    """Metrics of a model, collected where `PROMETHEUS_MULTIPROC_DIR` is set and prometheus_client is installed."""
    folder = os.environ.get(FOLDER)
    try:
        import prometheus_client  # noqa: F401
    except ImportError:
        folder = None
    bins = manifest.reference_scores.get("edges") or BINS
    return Metrics(Path(folder) if folder else None, version=manifest.model.version, bins=bins)


def _instrument(library: Any, registry: Any, declared: Declaration, buckets: Sequence[float] | None) -> Any:
    bounds = buckets or declared.buckets
    more: dict[str, Any] = {"buckets": bounds} if bounds else {}
    if declared.kind == "Gauge":
        more["multiprocess_mode"] = "livesum"
    kind = _histogram(library) if declared.kind == "Histogram" else getattr(library, declared.kind)
    instrument = kind(declared.name, declared.text, declared.labels, registry=registry, **more)
    for value in declared.values:
        instrument.labels(value)
    return instrument


def _histogram(library: Any) -> Any:
    """prometheus_client's histogram, which takes a value several times at once: a batch of 8 costs half as much so."""

    class Histogram(library.Histogram):  # type: ignore[misc]
        def add(self, value: float, times: int = 1) -> None:
            self._sum.inc(value * times)
            self._buckets[bisect_left(self._upper_bounds, value)].inc(times)

    return Histogram
