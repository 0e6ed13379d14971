"""Compare two benchmarks by their samples: ratios of throughput and latency with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report.samples import Recorded, SampleFile
from detector.errors import FileError
from detector.files import shown

WINDOWS = 30  # of each load; requests of one window share what slowed them, so windows are drawn and not requests
REPLICATES = 1000
LEAST_ANSWERS = {"throughput": 30, "p50": 30, "p99": 500}  # fewer say too little about it
WORSE, BETTER, SAME, UNCLEAR = "worse", "better", "same", "unclear"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """B over A. low, high: confidence interval. verdict: worse or better when the whole interval lies beyond the tolerance,
    same when it lies within, unclear otherwise."""

    metric: str
    a: float
    b: float
    ratio: float
    low: float
    high: float
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        numbers = {key: round(getattr(self, key), 4) for key in ("a", "b", "ratio", "low", "high")}
        return {"metric": self.metric, **numbers, "verdict": self.verdict}


class Windows:
    """The right answers of a load, by windows of time."""

    def __init__(self, runs: Sequence[Recorded]) -> None:
        self.latencies: list[Floats] = []
        self.seconds: list[float] = []
        for run in runs:
            right = np.array([not problem for problem in run.problems], bool)
            took = np.asarray(run.milliseconds, np.float64)
            ends = np.asarray(run.started, np.float64) + took / 1e3
            edges = np.linspace(min(run.started), ends.max(), WINDOWS + 1)
            place = np.clip(np.searchsorted(edges, ends, side="right") - 1, 0, WINDOWS - 1)
            self.latencies += [took[right & (place == window)] for window in range(WINDOWS)]
            self.seconds += [float(edges[1] - edges[0])] * WINDOWS
        self.answers = sum(map(len, self.latencies))

    def measure(self, chosen: Sequence[int] | None = None) -> dict[str, float]:
        """Answers per second, median and 99th percentile in milliseconds, over the windows with these numbers."""
        chosen = range(len(self.latencies)) if chosen is None else chosen
        took = np.concatenate([self.latencies[i] for i in chosen])
        found = {"throughput": len(took) / sum(self.seconds[i] for i in chosen)}
        p50, p99 = np.percentile(took, (50, 99)) if len(took) else (np.nan, np.nan)
        return {**found, "p50": float(p50), "p99": float(p99)}

    def replicates(self, rng: np.random.Generator) -> dict[str, Floats]:
        """What `measure` gives for windows drawn with replacement, many times (Künsch, Annals of Statistics 17:1217)."""
        n = len(self.latencies)
        drawn = [self.measure(rng.integers(n, size=n).tolist()) for _ in range(REPLICATES)]
        return {name: np.array([each[name] for each in drawn]) for name in drawn[0]}


def compare_samples(
    a: SampleFile, b: SampleFile, *, tolerance: float, confidence: float = 0.95, seed: int = 0
) -> dict[str, Any]:
    """Compare the loads that both files have, by name; returns JSON values.

    Only right answers count, for throughput and for latency. tolerance: relative change that is no regression, such as 0.1.
    confidence: of the intervals. `ok` is False when any ratio's verdict is worse.
    Raises `FileError` when the files share no load.
    """
    names = [name for name in dict.fromkeys(run.name for run in a.runs) if b.named(name)]
    if not names:
        raise FileError(
            f"{shown(b.path)} and {shown(a.path)} have no load in common: {_names(a)} there, {_names(b)} here; run both with "
            "the same options"
        )
    rng = np.random.default_rng(seed)
    loads: list[dict[str, Any]] = []
    notes = _differences(a, b)
    for name in names:
        ratios, missing = _ratios(a.named(name), b.named(name), tolerance, confidence, rng)
        loads.append({"name": name, "ratios": [ratio.to_dict() for ratio in ratios]})
        notes += [f"{name}: {reason}" for reason in missing]
        was, now = a.named(name)[0].rate, b.named(name)[0].rate
        if was is not None and now is not None and was != now:
            notes.append(f"{name}: the planned rates differ, {was:.4g} and {now:.4g} requests per second")
    alone = sorted({run.name for run in (*a.runs, *b.runs)} - set(names))
    if alone:
        notes.append(f"only one of the two has {', '.join(alone)}")
    verdicts = {ratio["verdict"] for load in loads for ratio in load["ratios"]}
    return {
        "ok": WORSE not in verdicts,
        "tolerance": tolerance,
        "confidence": confidence,
        "loads": loads,
        "notes": notes,
        "a": {"file": shown(a.path), **a.about},
        "b": {"file": shown(b.path), **b.about},
    }


def _ratios(
    a: Sequence[Recorded], b: Sequence[Recorded], tolerance: float, confidence: float, rng: np.random.Generator
) -> tuple[list[Ratio], list[str]]:
    """The ratios that can be told, and why others can't."""
    if not all(run.started for run in (*a, *b)):
        return [], ["no request was sent in one of the two"]
    first, second = Windows(a), Windows(b)
    if not first.answers:
        return [], ["A has no right answer to compare with"]
    was, now = first.measure(), second.measure()
    if not second.answers:
        return [Ratio("throughput", was["throughput"], 0.0, 0.0, 0.0, 0.0, WORSE)], ["B has no right answer"]
    before, after = first.replicates(rng), second.replicates(rng)
    tails = [50 * (1 - confidence), 50 * (1 + confidence)]
    found, missing = [], []
    for metric, least in LEAST_ANSWERS.items():
        if min(first.answers, second.answers) < least:
            missing.append(f"{min(first.answers, second.answers)} right answers are too few for {metric} ({least} are needed)")
            continue
        low, high = np.percentile(after[metric] / before[metric], tails)
        ratio = now[metric] / was[metric]
        verdict = _verdict(float(low), float(high), tolerance, more_is_better=metric == "throughput")
        found.append(Ratio(metric, was[metric], now[metric], ratio, float(low), float(high), verdict))
    return found, missing


def _verdict(low: float, high: float, tolerance: float, *, more_is_better: bool) -> str:
    floor, ceiling = 1 / (1 + tolerance), 1 + tolerance
    if floor <= low and high <= ceiling:
        return SAME
    if high < floor:
        return WORSE if more_is_better else BETTER
    if low > ceiling:
        return BETTER if more_is_better else WORSE
    return UNCLEAR


def _differences(a: SampleFile, b: SampleFile) -> list[str]:
    """What of the two benchmarks differs besides the program that was measured."""
    labels = {"machine": "machines", "photos": "photos"}
    notes = [
        f"the {label} differ: {a.about[key]}; {b.about[key]}"
        for key, label in labels.items()
        if key in a.about and key in b.about and a.about[key] != b.about[key]
    ]
    if a.about.get("manifest_sha256") != b.about.get("manifest_sha256"):
        notes.append("the models differ: their manifests are not the same")
    return notes


def _names(file: SampleFile) -> str:
    return ", ".join(dict.fromkeys(run.name for run in file.runs)) or "none"


def table(result: dict[str, Any]) -> str:
    """The comparison as a text table."""
    head = ("load", "", "A", "B", "B / A", f"{100 * result['confidence']:g} % interval", "")
    rows = [head]
    for load in result["loads"]:
        for ratio in load["ratios"]:
            interval = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
            unit = "/s" if ratio["metric"] == "throughput" else "ms"
            values = (f"{ratio['a']:.2f} {unit}", f"{ratio['b']:.2f} {unit}", f"{ratio['ratio']:.3f}")
            rows.append((load["name"], ratio["metric"], *values, interval, ratio["verdict"]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"note: {note}" for note in result["notes"])])
