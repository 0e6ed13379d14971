"""Demo data: writes the embedded set of photographed and forged portraits, so that every stage runs without a download."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from detector.errors import FileError, UsageError
from training.demo.camera import FINAL_QUALITIES, Camera, edit, ship
from training.demo.forgery import FAMILIES, Target
from training.demo.portrait import Pose, draw_portrait

GENUINE = "photographed"
"""What `families.csv` says of a real photo."""
MARKER = "demo-set.json"
LIST = "families.csv"
STAGE = ".demo-set-unfinished"
SPLITS = ("Train", "Validation")
LABELS = ("Real", "Fake")
VERSION = 1
"""Goes up when the same seed draws other pictures, so that an older set is drawn again instead of kept."""


@dataclass(frozen=True)
class Recipe:
    """What decides every byte of a set."""

    count: int
    size: int
    seed: int
    version: int = VERSION


@dataclass(frozen=True)
class Item:
    """One picture to draw. The real and the fake photo of a `pair` share camera, edit and encode, never the person."""

    number: int
    pair: int
    family: str
    split: str

    @property
    def label(self) -> str:
        return "Real" if self.family == GENUINE else "Fake"

    @property
    def path(self) -> str:
        """Relative to the set; the number is drawn at random, so it tells nothing of the class."""
        return f"{self.split}/{self.label}/portrait_{self.number:06d}.jpg"


def generate(
    directory: Path, *, count: int = 1200, size: int = 160, seed: int = 0, progress: bool = True, workers: int | None = None
) -> None:
    """Write a set of `count` portraits, `size` pixels wide and high, half of them forged, below `directory`.

    The layout is `{Train,Validation}/{Real,Fake}/*.jpg` (80/20) and `families.csv` (file, label, family, split). The same
    count, size and seed give the same bytes, however many `workers` draw it (processes; as many as there are cores to use).
    The set appears when it is finished, not before. A finished one with the same parameters is kept, one with others is
    replaced. Raises UsageError for parameters that can't work, and FileError for a directory that holds anything else or
    can't be written.
    """
    if count < 20:
        raise UsageError(
            f"a set of {count} portraits is too small: at least 20 are needed, so that each split has every family"
        )
    if not 64 <= size <= 1024 or size % 2:
        raise UsageError(f"portraits of {size} pixels can't be drawn: an even number from 64 to 1024 is accepted")
    if seed < 0:
        raise UsageError(f"the seed {seed} can't be used: zero or a positive number is accepted")
    recipe = Recipe(count, size, seed)
    items = plan(recipe)
    if _is_finished(directory, recipe, items):
        print(f"{directory}: kept, it already holds this set ({count} portraits of {size} px, seed {seed})")
        return
    _refuse_foreign(directory)
    stage = directory / STAGE
    try:
        stage.mkdir(parents=True, exist_ok=True)  # from here until it is gone, `directory` is known to be ours and unfinished
        _remove(directory, MARKER, *SPLITS, LIST, *(f"{STAGE}/{name}" for name in (MARKER, *SPLITS, LIST)))
        for split, label in product(SPLITS, LABELS):
            (stage / split / label).mkdir(parents=True)
        _draw_all(stage, items, recipe, progress, workers or _usable_cores())
        _write_list(stage / LIST, items)
        (stage / MARKER).write_text(json.dumps(asdict(recipe)) + "\n")
        for name in (LIST, *SPLITS, MARKER):  # the marker last: without it there is no set
            (stage / name).rename(directory / name)
        stage.rmdir()
    except BaseException as error:
        _remove(directory, MARKER, *SPLITS, LIST, STAGE)
        if isinstance(error, OSError):
            raise FileError(f"{directory}: the portraits can't be written ({error.strerror or error})") from error
        raise


def plan(recipe: Recipe) -> list[Item]:
    """What to draw, by path: classes, families and splits in equal shares, numbers in random order."""
    rng = np.random.default_rng([recipe.seed, 0])
    pairs, families = recipe.count // 2, list(FAMILIES)
    numbers = iter(rng.permutation(recipe.count).tolist())
    items = []
    for pair in range(pairs + recipe.count % 2):
        # One round of families in five goes to validation, so each family is split 80/20.
        split = "Validation" if pair // len(families) % 5 == 1 else "Train"
        items.append(Item(next(numbers), pair, GENUINE, split))
        if pair < pairs:
            items.append(Item(next(numbers), pair, families[pair % len(families)], split))
    return sorted(items, key=lambda item: item.path)


def draw(item: Item, size: int, seed: int) -> bytes:
    """The JPEG file of one item."""
    person = np.random.default_rng([seed, 1, item.number])
    settings = np.random.default_rng([seed, 2, item.pair])
    camera = Camera.draw(settings)
    quality = int(settings.choice(FINAL_QUALITIES))
    pose = Pose.draw(person)
    photo = camera.photograph(person, draw_portrait(person, pose, size))
    if item.family != GENUINE:
        forger = np.random.default_rng([seed, 3, item.number])
        u, v = pose.head(size)
        target = Target(
            photo, u, v, lambda: Camera.draw(forger).photograph(forger, draw_portrait(forger, pose.near(forger), size))
        )
        photo = FAMILIES[item.family](forger, target)
    return ship(edit(settings, photo), quality)


def _draw_file(item: Item, stage: Path, size: int, seed: int) -> None:
    (stage / item.path).write_bytes(draw(item, size, seed))


def _draw_all(stage: Path, items: list[Item], recipe: Recipe, progress: bool, workers: int) -> None:
    work = partial(_draw_file, stage=stage, size=recipe.size, seed=recipe.seed)
    with tqdm(total=len(items), desc="demo portraits", unit="img", disable=not progress) as bar:
        if workers == 1:
            for item in items:
                work(item)
                bar.update()
            return
        # "spawn", because a forked child inherits the locks of the threads that torch or a BLAS may have started.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            with _interrupts_left_to_us():
                results = pool.map(work, items, chunksize=8)
            try:
                for _ in results:
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


@contextmanager
def _interrupts_left_to_us() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, which the terminal sends to all; the parent alone stops the work."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_list(path: Path, items: list[Item]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label", "family", "split"])
        writer.writerows([item.path, item.label, item.family, item.split] for item in items)


def _is_finished(directory: Path, recipe: Recipe, items: list[Item]) -> bool:
    """Whether `directory` holds all of this set, and no file besides."""
    try:
        if json.loads((directory / MARKER).read_text()) != asdict(recipe):
            return False
    except (OSError, ValueError):
        return False
    return _files(directory) == {LIST, MARKER, *(item.path for item in items)}


def _files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}


def _refuse_foreign(directory: Path) -> None:
    """Raise FileError unless `directory` is new, empty, or holds nothing but what an earlier run wrote."""
    accepted = "a new or empty directory, or one that `demo-data` made, is accepted"
    if directory.exists() and not directory.is_dir():
        raise FileError(f"{directory} is a file: {accepted}")
    files = {file for file in _files(directory) if not file.startswith(f"{STAGE}/")}
    if (directory / MARKER).is_file() or (directory / STAGE).is_dir():
        with suppress(OSError, ValueError, KeyError), (directory / LIST).open(newline="", encoding="utf-8") as file:
            files -= {row["file"] for row in csv.DictReader(file)} | {LIST, MARKER}
    if files:
        raise FileError(f"{directory} holds files that are not ours, such as {min(files)}: {accepted}")


def _remove(directory: Path, *names: str) -> None:
    for path in (directory / name for name in names):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
