"""Compare training throughput with timm's recipe: equal model, size, batch, precision and machine."""

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

WARM_UP = 1  # epochs that are not counted: the first one allocates memory, selects kernels and starts the loaders


@dataclass(frozen=True)
class TrainingSettings:
    """What both sides train. data: folder of labelled photos. epochs: that are measured. pairs: runs of each side. workers:
    loader processes of timm's side."""

    data: Path
    model: str = "efficientnet_b0"
    size: int = 128
    batch_size: int = 32
    epochs: int = 2
    pairs: int = 3
    workers: int = 4
    device: str = "cpu"
    bf16: bool = False


def compare_training(settings: TrainingSettings) -> dict[str, Any]:
    """Photos per second of both sides in pairs of runs, and the ratio ours / timm's: median, lowest and highest; JSON values.

    Each side is a process of its own, and the order alternates, so that other load on the machine affects both.
    Raises `UsageError` when there is no such folder, `SideFailed` with the last lines of output when a side fails.
    """
    folder = _class_folders(settings.data)
    pairs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=2 * settings.pairs, desc="training", unit="run") as bar:
        for number in range(settings.pairs):
            pair: dict[str, float] = {}
            for side in ("ours", "timm") if number % 2 == 0 else ("timm", "ours"):
                bar.set_postfix_str(side)
                speeds = _ours(settings, Path(scratch)) if side == "ours" else _timm(settings, folder)
                pair[side] = statistics.median(speeds[WARM_UP:])
                bar.update()
            pairs.append(pair)
    ratios = [pair["ours"] / pair["timm"] for pair in pairs]
    return {
        "model": settings.model,
        "size": settings.size,
        "batch_size": settings.batch_size,
        "precision": "bf16" if settings.bf16 else "float32",
        "device": settings.device,
        "timm_workers": settings.workers,
        "images_per_second": [{side: round(v, 1) for side, v in pair.items()} for pair in pairs],
        "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
    }


def _ours(settings: TrainingSettings, scratch: Path) -> list[float]:
    out = scratch / "run"
    _run(
        *("-m", "unmask", "train", "--data", str(settings.data), "--out", str(out), "--overwrite"),
        *("--cache-dir", str(scratch / "cache"), "--no-pretrained", "--calibration", "none"),
        *("--model", settings.model, "--size", str(settings.size)),
        *("--batch-size", str(settings.batch_size), "--epochs", str(settings.epochs + WARM_UP), "--device", settings.device),
        *(("--amp", "bf16") if settings.bf16 else ()),
    )
    report = read_json(out / "metrics.json", hint="`unmask train` writes it")
    return [epoch["images_per_second"] for epoch in report["speed"]["epochs"]]


def _timm(settings: TrainingSettings, folder: Path) -> list[float]:
    flags = {
        "--data": folder,
        "--model": settings.model,
        "--size": settings.size,
        "--batch-size": settings.batch_size,
        "--epochs": settings.epochs + WARM_UP,
        "--workers": settings.workers,
        "--device": settings.device,
    }
    given = [str(part) for pair in flags.items() for part in pair]
    said = _run("-m", "benchmarks.training.timm_recipe", *given, *(("--bf16",) if settings.bf16 else ()))
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
