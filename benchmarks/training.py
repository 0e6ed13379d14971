"""Training throughput, ours and timm's recipe, side by side: equal model, size, batch, precision and machine."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.errors import SideFailed
from detector.errors import UsageError
from detector.files import read_json

WARM_UP = 1  # epochs left out: the first one's steps find memory and kernels, and start the loaders


@dataclass(frozen=True)
class Work:
    """What both sides train. data: photos laid out as for `fit`. epochs: measured ones. workers: timm's loader processes."""

    data: Path
    model: str = "efficientnet_b0"
    size: int = 128
    batch_size: int = 32
    epochs: int = 2
    pairs: int = 3
    workers: int = 4
    device: str = "cpu"
    bf16: bool = False


def compare(work: Work) -> dict[str, Any]:
    """Photos per second of both sides in turn, and the ratio ours / timm's of each pair and of the median one, as JSON values.

    Each side is a process of its own and the pairs alternate in order, so that a noisy minute strikes both.
    Raises `UsageError` when the folder has no class folders, `SideFailed` with what a side said when it failed.
    """
    folder = _class_folders(work.data)
    pairs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=2 * work.pairs, desc="training", unit="run") as bar:
        for number in range(work.pairs):
            pair: dict[str, float] = {}
            for side in ("ours", "timm") if number % 2 == 0 else ("timm", "ours"):
                bar.set_postfix_str(side)
                speeds = _ours(work, Path(scratch)) if side == "ours" else _timm(work, folder)
                pair[side] = statistics.median(speeds[WARM_UP:])
                bar.update()
            pairs.append(pair)
    ratios = [pair["ours"] / pair["timm"] for pair in pairs]
    return {
        "model": work.model,
        "size": work.size,
        "batch_size": work.batch_size,
        "precision": "bf16" if work.bf16 else "float32",
        "device": work.device,
        "timm_workers": work.workers,
        "images_per_second": [{side: round(v, 1) for side, v in pair.items()} for pair in pairs],
        "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
    }


def _ours(work: Work, scratch: Path) -> list[float]:
    out = scratch / "run"
    _run(
        *("-m", "unmask", "train", "--data", str(work.data), "--out", str(out), "--overwrite"),
        *("--cache-dir", str(scratch / "cache"), "--no-pretrained", "--calibration", "none"),
        *("--model", work.model, "--size", str(work.size)),
        *("--batch-size", str(work.batch_size), "--epochs", str(work.epochs + WARM_UP), "--device", work.device),
        *(("--amp", "bf16") if work.bf16 else ()),
    )
    report = read_json(out / "metrics.json", hint="`unmask train` writes it")
    return [epoch["images_per_second"] for epoch in report["speed"]["epochs"]]


def _timm(work: Work, folder: Path) -> list[float]:
    said = _run(
        *("-m", "benchmarks.timm_recipe", "--data", str(folder), "--model", work.model, "--size", str(work.size)),
        *("--batch-size", str(work.batch_size), "--epochs", str(work.epochs + WARM_UP), "--workers", str(work.workers)),
        *("--device", work.device, *(("--bf16",) if work.bf16 else ())),
    )
    return [float(speed) for speed in json.loads(said.splitlines()[-1])]


def _run(*arguments: str) -> str:
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # what `fit` sets for itself; both sides get it
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-3:])
        raise SideFailed(f"`python {' '.join(arguments[:3])}` ended with {done.returncode}: {last}")
    return done.stdout


def _class_folders(data: Path) -> Path:
    """The folder whose sub-folders are the classes: Train/ where there is one."""
    if not data.is_dir():
        raise UsageError(f"--data {data}: no such folder")
    return next((entry for entry in sorted(data.iterdir()) if entry.is_dir() and entry.name.lower() == "train"), data)
