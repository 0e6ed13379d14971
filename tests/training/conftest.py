"""A small set that a small network learns in seconds: smooth pictures are real, grainy ones fake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import made_once

# The smallest of timm's test networks that has batch norm; it trains at some 1000 pictures a second on a core.
TINY = [
    *("--model", "test_resnet", "--no-pretrained", "--size", "32", "--hidden", "16", "--lr", "3e-3", "--batch-size", "16"),
    *("--workers", "0", "--device", "cpu", "--cross-fit", "0"),
]
# Of `tiny_run`.
RUN = ["--epochs", "5", *TINY, "--calibration", "platt"]


def draw(folder: Path, count: int, *, grain: float, seed: int) -> None:
    """Write `count` JPEG pictures, soft patches of colour with noise of that standard deviation."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(40, 216, (4, 4, 3), dtype=np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
        noisy = np.asarray(coarse) + rng.normal(0, grain * rng.uniform(0.3, 1.7), (48, 48, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.jpg", quality=92)


def draw_set(directory: Path, *, train: int = 60, validation: int = 30) -> Path:
    """A folder divided into Train and Validation, so many pictures of each class in each."""
    for seed, (part, count) in enumerate([("Train", train), ("Validation", validation)]):
        draw(directory / part / "Real", count, grain=3, seed=10 + seed)
        draw(directory / part / "Fake", count, grain=30, seed=20 + seed)
    return directory


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures to train on and 60 to validate on; not to be written to."""
    return made_once(tmp_path_factory, "tiny", draw_set)


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Pictures this small gain nothing from a second thread, and lose much where the cores are busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    """accelerate keeps one state for a process's life; each test sets its own up, as each command does."""
    yield
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001  accelerate has no public way
    GradientState._reset_state()  # noqa: SLF001


def fit(*arguments: Any, report: bool = False) -> int:
    """`unmask train` in this process; its exit code. report: for a test that reads the report page."""
    from unmask.__main__ import main

    return main(["train", *last_of_each(*arguments), *([] if report else ["--no-report"])])


def combine(data: Path, out: Path, members: list[Path], *more: object) -> int:
    """`unmask train --model ensemble`, with a report; its exit code."""
    return fit(
        *("--data", data, "--out", out, "--model", "ensemble", "--members", *members, "--calibration", "platt", *more),
        report=True,
    )


def last_of_each(*arguments: Any) -> list[str]:
    """Command-line arguments with the last of each option that is there twice, such as one of `TINY`'s and a test's own."""
    options: dict[str, list[str]] = {}
    for argument in map(str, arguments):
        if argument.startswith("--"):
            name = {"--img_size": "--size", "--batch_size": "--batch-size"}.get(argument, argument)
            options.pop(name, None)
            options[name] = [argument]
        else:
            list(options.values())[-1].append(argument)
    return [word for words in options.values() for word in words]


@pytest.fixture(scope="package")
def tiny_run(_one_thread: None, tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of five epochs on the small set; not to be written to."""

    def train(out: Path) -> None:
        assert fit("--data", tiny_set, "--out", out, *RUN, report=True) == 0

    return made_once(tmp_path_factory, "tiny_run", train)
