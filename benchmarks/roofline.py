"""The roofline: the same photos, model and JSON as a server's, in one process without a server.

It is the most that a server can do on this machine. Two designs are measured over a small sweep of batch sizes, and the best
counts: `workers`, N threads that each decode and infer with a one-threaded session of their own, and `pipeline`, one session
on all N threads with a pool of N threads decoding the next batch meanwhile. Pillow and ONNX Runtime release the GIL.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import summary
from benchmarks.photos import Photo, refuse_broken
from detector import decode_image
from detector.scorer import Scorer

WARM_UP_SECONDS = 0.5
SWEEP_SHARE = 0.2  # of the seconds that the winner gets


@dataclass(frozen=True)
class Design:
    """How work is divided. design: `workers` or `pipeline`. threads: in all. batch: photos per inference."""

    design: str
    threads: int
    batch: int


def roofline(
    model: Path, photos: Sequence[Photo], *, threads: int, batches: Sequence[int], seconds: float, device: str = "cpu"
) -> dict[str, Any]:
    """Latency of a single photo and the best saturated throughput, as JSON values.

    seconds: for the single photo and for the best design; each point of the sweep takes a fifth of that. The best design is
    measured again, since the largest of many noisy numbers is too large.
    Raises `FileError` when the model can't be loaded or a file is no photo.
    """
    refuse_broken(photos, Scorer(model, device=device, threads=1).manifest.image_spec)
    sweep = [Design(design, threads, batch) for design in ("workers", "pipeline") for batch in batches]
    single_threads = sorted({1, threads})
    steps = tqdm(total=len(single_threads) + len(sweep) + 1, desc="roofline", unit="step")
    with steps:
        singles = []
        for n in single_threads:
            steps.set_postfix_str(f"one photo at a time, {n} threads")
            singles.append({"threads": n, **single_photo(model, photos, threads=n, seconds=seconds / 2, device=device)})
            steps.update()
        tried = []
        for design in sweep:
            steps.set_postfix_str(f"{design.design}, batch {design.batch}")
            tried.append((throughput(model, photos, design, seconds=max(1.0, SWEEP_SHARE * seconds), device=device), design))
            steps.update()
        best = max(tried, key=lambda entry: entry[0]["photos_per_second"])[1]
        steps.set_postfix_str(f"the best again: {best.design}, batch {best.batch}")
        final = throughput(model, photos, best, seconds=seconds, device=device)
        steps.update()
    return {
        "single_photo": min(singles, key=lambda entry: entry["p50"]),
        "single_photo_by_threads": singles,
        "throughput": {**asdict(best), **final},
        "sweep": [{**asdict(design), **result} for result, design in tried],
    }


def single_photo(model: Path, photos: Sequence[Photo], *, threads: int, seconds: float, device: str = "cpu") -> dict[str, Any]:
    """Latency in milliseconds of photos that one session with `threads` scores one after the other."""
    took = one_by_one(Scorer(model, device=device, threads=threads), photos, warm_up=WARM_UP_SECONDS, seconds=seconds)
    return {"photos": len(took), **summary.latency(took)}


def one_by_one(scorer: Scorer, photos: Sequence[Photo], *, warm_up: float, seconds: float) -> list[float]:
    """Milliseconds for each photo, one after the other, for `seconds` after a warm-up."""
    took: list[float] = []
    start = time.perf_counter()
    for photo in cycle(photos):
        before = time.perf_counter()
        if before - start > warm_up + seconds:
            break
        answer(scorer, [photo])
        if before - start > warm_up:
            took.append((time.perf_counter() - before) * 1e3)
    return took


def throughput(model: Path, photos: Sequence[Photo], design: Design, *, seconds: float, device: str = "cpu") -> dict[str, Any]:
    """Photos per second with every thread busy, over `seconds` after a warm-up, as JSON values.

    CPU time per photo, over all threads, varies far less than the rate when other processes take CPU time.
    """
    spans: list[tuple[float, float]] = []  # when each batch began and ended; appending is atomic
    stop = threading.Event()

    def work(scorer: Scorer, feed: Iterator[Photo], pool: ThreadPoolExecutor | None) -> None:
        decode = scorer.manifest.image_spec
        ahead = [pool.submit(decode_image, p.data, decode) for p in islice(feed, design.batch)] if pool else []
        began = time.perf_counter()
        while not stop.is_set():
            batch = list(islice(feed, design.batch))
            if pool:
                ready, ahead = ahead, [pool.submit(decode_image, p.data, decode) for p in batch]
                encode(scorer, [f.result() for f in ready])
            else:
                answer(scorer, batch)
            ended = time.perf_counter()
            spans.append((began, ended))
            began = ended

    pipeline = design.design == "pipeline"
    scorers = (
        [Scorer(model, device=device, threads=design.threads)]
        if pipeline
        else [Scorer(model, device=device, threads=1) for _ in range(design.threads)]
    )
    with ThreadPoolExecutor(design.threads) as decoders, ThreadPoolExecutor(len(scorers)) as workers:
        feeds = [cycle([*photos[i:], *photos[:i]]) for i in range(len(scorers))]
        running = [workers.submit(work, s, f, decoders if pipeline else None) for s, f in zip(scorers, feeds, strict=True)]
        try:
            time.sleep(WARM_UP_SECONDS)
            start, cpu = time.perf_counter(), time.process_time()
            time.sleep(seconds)
            cpu = time.process_time() - cpu
        finally:
            stop.set()
        for future in running:
            future.result()
    edges = [start + seconds * third / 3 for third in range(4)]
    rates = [round(design.batch * _batches_within(spans, low, high) / (high - low), 2) for low, high in pairwise(edges)]
    per_second = sum(rates) / 3
    return {
        "photos_per_second": round(per_second, 2),
        "cpu_ms_per_photo": round(1e3 * cpu / (per_second * seconds), 3) if per_second else None,
        "thirds": rates,
        "steady": summary.is_steady(rates),
    }


def _batches_within(spans: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """Batches done between two moments; a batch at an edge counts by the share of its time that lies inside, so that large
    batches are measured as finely as small ones."""
    return sum(max(0.0, min(end, high) - max(begin, low)) / (end - begin) for begin, end in spans)


def answer(scorer: Scorer, photos: Sequence[Photo]) -> list[bytes]:
    """Verdicts as JSON for encoded photos, in one batch."""
    return encode(scorer, [decode_image(p.data, scorer.manifest.image_spec) for p in photos])


def encode(scorer: Scorer, images: Sequence[Any]) -> list[bytes]:
    """Verdicts as JSON for decoded photos, in one batch."""
    return [json.dumps(v.to_dict()).encode() for v in scorer.score_images(images)]
