"""The results page: every architecture trained on two sets of photos, as Markdown tables."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.errors import TrainingFailed
from benchmarks.machine import machine
from detector.cpus import available_cpus
from detector.errors import UsageError
from detector.files import read_json, shown

FOLDS = 5
CALIBRATION = ("--calibration", "platt")
COMMON = ("--schedule", "cosine", *CALIBRATION, "--tune-fraction", "0.05")
# From random weights, at sizes and for as long as a CPU can afford.
SCRATCH = {
    "efficientnet_b0": ("--no-pretrained", "--size", "128", "--epochs", "8", "--lr", "1e-3", "--batch-size", "16"),
    "resnext50_32x4d": ("--no-pretrained", "--size", "128", "--epochs", "3", "--lr", "5e-4", "--batch-size", "16"),
    "resnet50": ("--no-pretrained", "--size", "128", "--epochs", "3", "--lr", "5e-4", "--batch-size", "16"),
    "dual_stream": ("--no-pretrained", "--size", "128", "--epochs", "8", "--lr", "1e-3", "--batch-size", "16"),
}
# What docs/how-to/train.md recommends. In bfloat16 it is no faster on a CPU.
RECOMMENDED = (
    *("--model", "efficientnet_lite0", "--multiscale", "--augment", "robust", "--crop", "128", "--mixup", "0.3"),
    *("--lr", "6e-4", "--batch-size", "16", "--epochs", "24"),
)
# Blocks 4 and 5 on both sides of the last pooling; docs/explanation/performance.md has the others that were tried.
FROZEN = (
    *("--model", "squeezenet1_1", "--multiscale", "--gram", "4,5", "--zoom", "1.5", "--freeze-backbone", "--augment", "flip"),
    *("--hidden", "256", "--mixup", "0.4", "--dropout", "0.5", "--lr", "3e-4", "--weight-decay", "0.01", "--epochs", "30"),
)

# Trained once for each fold, from ImageNet weights, and averaged by an ensemble.
MEMBERS = {"efficientnet_lite0": RECOMMENDED, "squeezenet1_1 frozen": FROZEN}
# Weights that no package holds come from the file that the command is given.
FROM_FILE = ("squeezenet1_1 frozen",)


@dataclass(frozen=True)
class Row:
    """A row of the table. name: as shown. start: source of the first weights. flags: of `unmask train`. members: folders of
    the rows that an ensemble averages."""

    name: str
    start: str
    flags: tuple[str, ...]
    members: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        return self.name.replace(" ", "_").replace(",", "")


@dataclass(frozen=True)
class PhotoSet:
    """A set of labelled photos. size: side of its photos in pixels, at which the fine-tuned rows train."""

    name: str
    directory: Path
    size: int


def plan(photos: PhotoSet, weights: Path) -> list[Row]:
    """The rows for one set; members come before their ensemble."""
    scratch = [
        Row(name, "random", ("--model", name, *flags, "--amp", "auto", "--cross-fit", "0")) for name, flags in SCRATCH.items()
    ]
    rows = []
    for name, flags in MEMBERS.items():
        start = (*flags, *(("--weights", str(weights)) if name in FROM_FILE else ()), "--size", str(photos.size))
        folds = [
            Row(f"{name}, fold {k}", "ImageNet", (*start, "--folds", str(FOLDS), "--fold", str(k), "--seed", str(k)))
            for k in range(1, FOLDS + 1)
        ]
        together = tuple(row.folder for row in folds)
        rows += [*folds, Row(f"{name}, all folds", "ImageNet", ("--model", "ensemble", "--mirror"), together)]
    return [*rows, *scratch]


def train_all(sets: Sequence[PhotoSet], weights: Path, out: Path, jobs: int) -> dict[str, list[dict[str, Any]]]:
    """Train every row of every set, `jobs` at a time; returns the rows' measurements by the set's name.

    Finished runs are not trained again and interrupted ones are resumed, so the same command continues.
    Raises `TrainingFailed` with a run's last line when it fails, `UsageError` when photos or weights are missing.
    """
    for path in (weights, *(photos.directory for photos in sets)):
        if not path.exists():
            raise UsageError(f"{shown(path)}: no such file or folder")
    work = [(photos, row) for photos in sets for row in plan(photos, weights)]
    threads = max(1, available_cpus() // jobs)
    stop = threading.Event()

    def run(photos: PhotoSet, row: Row) -> dict[str, Any]:
        metrics = _fit(photos, row, out / photos.name, threads, stop)
        bar.update()
        return metrics

    measured: dict[str, list[dict[str, Any]]] = {photos.name: [] for photos in sets}
    with tqdm(total=len(work), desc="results", unit="run") as bar, ThreadPoolExecutor(jobs) as pool:
        try:
            alone = [(photos, row, pool.submit(run, photos, row)) for photos, row in work if not row.members]
            for photos, row, future in alone:
                measured[photos.name].append(_summary(row, future.result()))
            for photos, row in work:
                if row.members:
                    measured[photos.name].append(_summary(row, run(photos, row)))
        except BaseException:
            stop.set()  # after Ctrl-C or a failed run, the others stop; the next call resumes them from their last epoch
            pool.shutdown(cancel_futures=True)
            raise
    return measured


def train_arguments(photos: PhotoSet, row: Row, folder: Path) -> list[str]:
    """Arguments of `unmask train` for a row; folder: of the set's runs."""
    averaged = ("--members", *(str(folder / member) for member in row.members), *CALIBRATION)
    flags = (*row.flags, *(averaged if row.members else (*COMMON, "--resume")))
    where = ("--data", str(photos.directory), "--out", str(folder / row.folder), "--cache-dir", str(folder / "cache"))
    return [*where, *flags]


def _fit(photos: PhotoSet, row: Row, folder: Path, threads: int, stop: threading.Event) -> dict[str, Any]:
    out = folder / row.folder
    report = out / "metrics.json"
    if not report.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "unmask", "train", *train_arguments(photos, row, folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        log = folder / f"{row.folder}.log"
        with log.open("w", encoding="utf-8") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
            while process.poll() is None:
                if stop.wait(0.5):
                    process.terminate()
                    process.wait()
        if process.returncode:
            last = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").strip().splitlines()[-1:]
            raise TrainingFailed(f"{photos.name}, {row.name}: ended with {process.returncode}: {' '.join(last)}")
    metrics = read_json(report, hint="`unmask train` writes it")
    metrics["bytes"] = (out / "best_model.pth").stat().st_size
    return metrics


def _summary(row: Row, metrics: dict[str, Any]) -> dict[str, Any]:
    speed = metrics.get("speed") or {}
    return {
        "name": row.name,
        "start": row.start,
        "pixels": metrics["arguments"]["size"],
        "epochs": len(metrics.get("history") or []),
        "parameters": metrics["parameters"],
        "megabytes": metrics["bytes"] / 1e6,
        "images_per_second": speed.get("images_per_second"),
        "counts": metrics["counts"],
        **{key: metrics["validation"][key] for key in ("auc", "accuracy", "ece_raw", "ece", "smooth_ece")},
    }


def page(measured: dict[str, list[dict[str, Any]]], jobs: int) -> str:
    """The results as Markdown."""
    threads = max(1, available_cpus() // jobs)
    told = f"{threads} thread{'s' if threads > 1 else ''}"
    parts = [_HEAD.format(machine=machine()["label"], threads=told, jobs=jobs)]
    for name, rows in measured.items():
        counts = rows[0]["counts"]
        photos = {part: of_class["real"] + of_class["fake"] for part, of_class in counts.items()}
        training = sum(photos.values()) - photos["validation"]
        parts.append(f"\n## {name}\n\n{training:,} photos to train on, {photos['validation']:,} judged on.\n\n{_COLUMNS}")
        parts += [_line(row) for row in rows]
        best = max(rows, key=lambda row: float(row["auc"]["value"]))
        median = statistics.median(float(row["auc"]["value"]) for row in rows)
        parts.append(f"\nBest: {best['name']}, AUC {_interval(best['auc'])}; the median row has {median:.3f}.")
    return "\n".join(parts) + "\n"


def notes(written: Path) -> str:
    """What people wrote below the tables of an earlier page, from the heading `NOTES` on; empty where there is none."""
    text = written.read_text(encoding="utf-8") if written.is_file() else ""
    return text[text.index(NOTES) :] if NOTES in text else ""


def _line(row: dict[str, Any]) -> str:
    cells = (
        row["name"],
        row["start"],
        row["pixels"],
        row["epochs"] or "–",
        f"{row['parameters'] / 1e6:.1f} M",
        f"{row['megabytes']:.0f} MB",
        f"{row['images_per_second']:.0f}" if row["images_per_second"] else "–",
        _interval(row["auc"]),
        _interval(row["accuracy"]),
        f"{row['ece_raw']['value']:.3f}",
        _interval(row["ece"]),
        f"{row['smooth_ece']['value']:.3f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def _interval(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


NOTES = "\n## What was tried for faces\n"
_HEAD = """# Results

`make results` writes the tables of this page. Each row is one run of `unmask train`, which trains, calibrates and evaluates by
itself. Intervals are 95 % bootstrap intervals over the validation photos, which no run used for anything else. `fold
K` calibrates on the K-th of five folds. In the ensemble of all folds, each photo is scored for the calibration by the
run that was not fitted on it. The `frozen` rows train only a head, on features that the backbone computes once;
their `img/s` is the head's.

These are results of little data. Each set has about a thousand photos to fit on, and the rows that start from random
weights train for minutes on a CPU at 128 pixels. They show that every architecture trains, calibrates and evaluates,
not how good it can be: use them with hub weights, which are the default, and with more photos. An AUC from 400 photos
of one source says nothing about other generators. With 400 photos even a perfectly calibrated detector shows an ECE
of 0.03 to 0.05.

Measured on {machine}, {threads} for each run, {jobs} at a time; `img/s` is training throughput there, beside
whatever else the machine was doing."""
_NAMES = ("model", "weights from", "px", "epochs", "parameters", "checkpoint", "img/s", "AUC", "accuracy", "ECE raw",
          "ECE calibrated", "smooth ECE")  # fmt: skip
_COLUMNS = f"| {' | '.join(_NAMES)} |\n|{'---|' * len(_NAMES)}"
