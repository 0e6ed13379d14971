"""The training photos: finding them on disk, identifying them by content, dividing them into parts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.errors import FileError, UsageError
from detector.files import shown
from detector.packed import Readable, is_packed, packed_files
from training.data.packed import find_packed, labels_of
from training.errors import DataProblem

REAL, FAKE = 0, 1
CLASSES = {"real": REAL, "fake": FAKE}
VALIDATION_FRACTION = 0.2  # of each class, where the folder does not divide itself
FEWEST = 10  # photos of each class below which no part of them says anything
_LITTER = {"thumbs.db", "desktop.ini"}
_LAYOUTS = (
    "expected DIR/{Train,Validation}/{Real,Fake}/… or DIR/{real,fake}/…, in any letter case, or Parquet files or tar shards "
    "with photos and labels"
)


@dataclass(frozen=True)
class Photo:
    """A file on disk, or an entry of one. path: where its bytes are. name: its path inside the data folder, with `/`, as text
    that any file takes. label: 0 real, 1 fake.

    part: "train" or "validation" where the folders say so, else None.
    """

    path: Readable
    name: str
    label: int
    part: str | None


@dataclass(frozen=True)
class Parts:
    """Row numbers of four parts, sorted: int64[n] each, which share none unless `divide` is asked for that.

    `calibrate` is empty when nothing is calibrated, and `tune` when nothing is tuned.
    """

    fit: NDArray[np.int64]
    tune: NDArray[np.int64]
    calibrate: NDArray[np.int64]
    validation: NDArray[np.int64]

    def items(self) -> list[tuple[str, NDArray[np.int64]]]:
        """Name and rows, in the order that photos pass through them."""
        return [(name, getattr(self, name)) for name in ("fit", "tune", "calibrate", "validation")]


def find_photos(directory: Path, *, fakes_needed: bool = True, labels: str | None = None) -> list[Photo]:
    """All files under the class folders, or all entries of Parquet and tar files, sorted by name.

    fakes_needed: False also takes a folder without fake photos: DIR/{Train,Validation}/Real or DIR/real. labels: what those of
    Parquet and tar files mean, as `training.data.packed.labels_of` reads it.
    Raises `DataProblem` saying what was found instead of a layout.
    """
    roots = check_layout(directory, fakes_needed=fakes_needed)
    if not roots:
        found = find_packed(packed_files(directory), directory, labels_of(labels, CLASSES))
        photos = [Photo(entry, entry.name, label, part) for entry, label, part in found]
        if fakes_needed and {photo.label for photo in photos} != set(CLASSES.values()):
            raise DataProblem(f"--data {shown(directory)}: has photos of one class alone; both are needed")
        return sorted(photos, key=lambda photo: photo.name)
    photos = [
        Photo(file, shown(file.relative_to(directory).as_posix()), label, part)
        for folder, label, part in roots
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".") and file.name.lower() not in _LITTER
    ]
    return sorted(photos, key=lambda photo: photo.name)


def check_layout(directory: Path, *, fakes_needed: bool = True) -> list[tuple[Path, int, str | None]]:
    """(folder, label, part) for each class folder of whichever layout is there; none for Parquet and tar files, which are not
    opened yet. Raises as `find_photos` does."""
    try:
        if is_packed(directory):
            return []
    except FileError as error:
        raise DataProblem(f"--data {error.message}") from None
    if not directory.is_dir():
        raise DataProblem(f"--data {shown(directory)}: no such folder; {_LAYOUTS}")
    divided = [(folder, part) for part in ("train", "validation") for folder in _named(directory, part)]
    if {part for _, part in divided} == {"train", "validation"}:
        found: list[tuple[Path, int, str | None]] = [
            (c, label, part) for folder, part in divided for name, label in CLASSES.items() for c in _named(folder, name)
        ]
        kinds = {(label, part) for _, label, part in found}
        if len(kinds) == 4 or (not fakes_needed and kinds == {(REAL, "train"), (REAL, "validation")}):
            return found
    flat: list[tuple[Path, int, str | None]] = [
        (c, label, None) for name, label in CLASSES.items() for c in _named(directory, name)
    ]
    labels = {label for _, label, _ in flat}
    if len(labels) == 2 or (not fakes_needed and labels == {REAL}):
        return flat
    if packed_files(directory):
        return []
    alone = "" if fakes_needed else "; real photos alone will do in either"
    raise DataProblem(f"--data {shown(directory)}: found {_listing(directory)}; {_LAYOUTS}{alone}")


def _named(directory: Path, name: str) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if entry.is_dir() and entry.name.lower() == name)


def _listing(directory: Path) -> str:
    """What a folder holds, two levels deep, in a line."""
    entries = []
    for folder in sorted(e for e in directory.iterdir() if e.is_dir()):
        inside = sorted(shown(e.name) + "/" for e in folder.iterdir() if e.is_dir())
        entries.append(f"{shown(folder.name)}/" + (f" (with {', '.join(inside[:6])})" if inside else ""))
    files = sum(e.is_file() for e in directory.iterdir())
    folders = ", ".join(entries[:8]) + (f" and {len(entries) - 8} more folders" if len(entries) > 8 else "")
    return (folders or "no folders") + (f" and {files} files" if files else "")


def fingerprint(photos: Sequence[Photo], hashes: Sequence[str] | None = None) -> str:
    """SHA-256 over each photo's name and content hash, in order of name: the same photos give the same, wherever they lie.

    hashes: the SHA-256 of each file, where it is known already; else the files are read.
    """
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:  # hashing and reading release the interpreter lock
        contents = hashes if hashes is not None else pool.map(content_hash, photos)
        for photo, content in zip(photos, contents, strict=True):
            digest.update(f"{photo.name}\0{content}\n".encode())
    return digest.hexdigest()


def content_hash(photo: Photo) -> str:
    """SHA-256 of a photo's bytes; where they can't be read their content is not known, and the reason stands for it."""
    try:
        data = photo.path.read_bytes()
    except OSError as error:
        data = str(error.strerror).encode()
    return hashlib.sha256(data).hexdigest()


def checked_pattern(pattern: str | None, flag: str) -> str | None:
    """The pattern, when it is a regular expression; raises `UsageError` naming the flag."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise UsageError(f"{flag} {pattern!r} is not a regular expression: {error}") from None
    return pattern


def divide(
    photos: Sequence[Photo],
    readable: NDArray[np.bool_],
    *,
    tune: float,
    calibrate: float,
    seed: int,
    folds: int | None = None,
    fold: int | None = None,
    groups: NDArray[np.int64] | None = None,
    fakes_needed: bool = True,
) -> Parts:
    """Divide readable photos into parts that have the classes' proportions, as near as whole groups allow.

    `tune` and `calibrate` are fractions of the training photos. folds: what is not tuned on is divided into so many folds
    instead; the calibrate part is number `fold` of them, from 1, and the rest is fitted on; None fits and calibrates on all.
    Validation is the folder's own, or a fifth of a folder that is not divided. groups: int64[n], photos with one number stay
    in one part; None keeps none together. The division depends on the names, the groups, the fractions and the seed alone.
    Raises `DataProblem` for too few photos, or groups too large.
    """
    rng = np.random.default_rng(seed)
    divided = any(photo.part == "validation" for photo in photos)
    learned = [f"fold {k + 1}" for k in range(folds)] if folds else ["calibrate", "fit"]
    room: dict[str, list[int]] = {part: [0, 0] for part in ("validation", "tune", *learned)}
    own, pool = [], []
    for name, label in CLASSES.items():
        of_class = [i for i, photo in enumerate(photos) if photo.label == label and readable[i]]
        train = [int(i) for i in rng.permutation([i for i in of_class if photos[i].part != "validation"])]
        validation = [i for i in of_class if photos[i].part == "validation"]
        for_validation = 0 if divided else round(VALIDATION_FRACTION * len(train))
        pool += train
        own += validation
        n = len(train) - for_validation
        if label == FAKE and not fakes_needed and not of_class:
            continue
        if n < FEWEST or len(validation) + for_validation < 2:
            raise DataProblem(
                f"{n} readable {name} photos for training and {len(validation) + for_validation} for validation; "
                f"at least {FEWEST} and 2 of each class are needed"
            )
        for_tuning = max(1, round(tune * n)) if tune else 0
        rest = n - for_tuning
        for_calibration = max(1, round(calibrate * n)) if calibrate else 0
        shares = (
            [rest // folds + (k < rest % folds) for k in range(folds)] if folds else [for_calibration, rest - for_calibration]
        )
        for part, share in zip(room, (for_validation, for_tuning, *shares), strict=True):
            room[part][label] = share
    rows = _fill(room, _units(pool, groups), photos)
    rows["validation"] += own
    _require_filled(room, rows, photos)
    if folds:
        aside = [name for name in learned if fold is None or name == f"fold {fold}"]
        rows["calibrate"] = [row for name in aside for row in rows[name]]
        rows["fit"] = [row for name in learned if fold is None or name not in aside for row in rows[name]]
        rows = {part: rows[part] for part in ("validation", "tune", "calibrate", "fit")}
    return Parts(**{part: np.sort(np.array(found, np.int64)) for part, found in rows.items()})


def _units(pool: Sequence[int], groups: NDArray[np.int64] | None) -> list[list[int]]:
    """Rows that stay together, in the order they came; the largest first, since they are the hardest to place."""
    units: dict[int, list[int]] = {}
    for row in pool:
        units.setdefault(row if groups is None else int(groups[row]), []).append(row)
    return sorted(units.values(), key=len, reverse=True)


def _fill(room: Mapping[str, list[int]], units: Sequence[list[int]], photos: Sequence[Photo]) -> dict[str, list[int]]:
    """Each unit whole into one part: the one it overfills least, then, of a group, the emptiest, of a single, the first.

    A part without room for any gets none.
    """
    rows: dict[str, list[int]] = {part: [] for part in room}
    left = {part: np.array(shares) for part, shares in room.items() if any(shares)}
    for unit in units:
        need = np.bincount([photos[row].label for row in unit], minlength=2)

        def cost(part: str, need: NDArray[np.int64] = need) -> tuple[int, float]:
            over = int(np.maximum(need - np.maximum(left[part], 0), 0).sum())
            return over, -float((need * left[part] / np.maximum(room[part], 1)).sum()) if need.sum() > 1 else 0

        part = min(left, key=cost)
        rows[part] += unit
        left[part] = left[part] - need
    return rows


def _require_filled(room: Mapping[str, list[int]], rows: Mapping[str, list[int]], photos: Sequence[Photo]) -> None:
    for part, shares in room.items():
        found = np.bincount([photos[row].label for row in rows[part]], minlength=2)
        for name, label in CLASSES.items():
            if shares[label] and not found[label]:
                raise DataProblem(
                    f"with duplicates and groups kept whole no {name} photo is left for the part `{part}`; "
                    "give more photos, or a --group-by with smaller groups"
                )


def class_counts(labels: NDArray[np.int64]) -> dict[str, int]:
    """Photos of each class."""
    return {name: int((labels == label).sum()) for name, label in CLASSES.items()}


def counts(parts: Parts, labels: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Photos of each class in each part."""
    return {part: class_counts(labels[rows]) for part, rows in parts.items()}


def unreadable_warning(unreadable: Mapping[str, str], total: int, shown: int = 10) -> str:
    """A warning that names files which can't be used, and why."""
    lines = [f"warning: {len(unreadable)} of {total} files can't be read and are skipped:"]
    lines += [f"  {name}: {reason}" for name, reason in list(unreadable.items())[:shown]]
    if len(unreadable) > shown:
        lines.append(f"  … and {len(unreadable) - shown} more; metrics.json names them all")
    return "\n".join(lines)
