"""`unmask bench training` and `results`: training, measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from detector.cpus import available_cpus
from detector.files import atomic_write
from unmask.commands.term import stopped_by_term
from unmask.parameters import Count, LabelledPhotos, Switch


@stopped_by_term
def training(
    *,
    data: LabelledPhotos,
    model: str = "efficientnet_b0",
    size: Count = 128,
    batch_size: Count = 32,
    epochs: Count = 2,
    pairs: Count = 3,
    workers: Annotated[int, Parameter(validator=Number(gte=0))] = 4,
    device: Literal["cpu", "cuda"] = "cpu",
    bf16: Switch = False,
) -> int:
    """Compare training throughput with timm's recipe.

    Parameters
    ----------
    model
        Name of a timm model.
    size
        Height and width in pixels.
    batch_size
        Photos per step.
    epochs
        Epochs that are measured, after one more.
    pairs
        Number of runs of each side.
    workers
        Loader processes of timm's side.
    device
        Where to train.
    bf16
        Use bfloat16 autocast on both sides.
    """
    from benchmarks.machine import busy_cpus, machine
    from benchmarks.training.throughput import TrainingSettings, compare_training

    busy = busy_cpus()
    settings = TrainingSettings(data, model, size, batch_size, epochs, pairs, workers, device, bf16)
    print(json.dumps({**compare_training(settings), "machine": machine(), "busy_cpus_before": busy}, indent=2))
    return 0


@stopped_by_term
def results(
    *,
    faces: Path,
    composites: Path,
    weights: Path,
    runs: Path = Path("reports/results"),
    jobs: Count | None = None,
    out: Path = Path("docs/explanation/results.md"),
) -> int:
    """Train every architecture on two sets, for docs/explanation/results.md.

    The notes below the tables stay.

    Parameters
    ----------
    faces
        Folder of 256 px portraits, photographed or generated.
    composites
        Folder of 160 px portraits, some composited.
    weights
        ImageNet features of squeezenet1_1.
    runs
        Folder for the runs.
    jobs
        Number of runs at the same time (default: one for each CPU).
    out
        Page to write.
    """
    from benchmarks.training.results import PhotoSet, notes, page, train_all

    at_once = jobs or available_cpus()
    measured = train_all([PhotoSet("faces", faces, 256), PhotoSet("composites", composites, 160)], weights, runs, at_once)
    text = page(measured, at_once) + notes(out)
    with atomic_write(out) as partial:
        partial.write_text(text, encoding="utf-8")
    print(f"results: {out}")
    return 0
