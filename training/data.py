"""The training photos: finding them on disk, identifying them by content, dividing them into parts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from detector.errors import UsageError
from detector.manifest import sha256

REAL, FAKE = 0, 1
CLASSES = {"real": REAL, "fake": FAKE}
VALIDATION_FRACTION = 0.2  # of each class, where the folder does not divide itself
FEWEST = 10  # photos of each class below which no part of them says anything
_LITTER = {"thumbs.db", "desktop.ini"}
_LAYOUTS = "expected DIR/{Train,Validation}/{Real,Fake}/… or DIR/{real,fake}/…, in any letter case"


class DataProblem(UsageError):
    """The data folder is not laid out as expected, or holds too little."""

    code = "bad_data"


@dataclass(frozen=True)
class Photo:
    """A file on disk. name: its path inside the data folder, with `/`. label: 0 real, 1 fake.

    part: "train" or "validation" where the folders say so, else None.
    """

    path: Path
    name: str
    label: int
    part: str | None


@dataclass(frozen=True)
class Parts:
    """Row numbers of four disjoint parts, sorted: int64[n] each; `calibrate` is empty when nothing is calibrated."""

    fit: NDArray[np.int64]
    tune: NDArray[np.int64]
    calibrate: NDArray[np.int64]
    validation: NDArray[np.int64]

    def items(self) -> list[tuple[str, NDArray[np.int64]]]:
        """Name and rows, in the order that photos pass through them."""
        return [(name, getattr(self, name)) for name in ("fit", "tune", "calibrate", "validation")]


def find_photos(directory: Path) -> list[Photo]:
    """All files under the class folders, sorted by name. Raises `DataProblem` saying what was found instead of a layout."""
    if not directory.is_dir():
        raise DataProblem(f"--data {directory}: no such folder; {_LAYOUTS}")
    roots = _class_folders(directory)
    photos = [
        Photo(file, file.relative_to(directory).as_posix(), label, part)
        for folder, label, part in roots
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".") and file.name.lower() not in _LITTER
    ]
    return sorted(photos, key=lambda photo: photo.name)


def _class_folders(directory: Path) -> list[tuple[Path, int, str | None]]:
    """(folder, label, part) for each class folder of whichever layout is there."""
    divided = [(folder, part) for part in ("train", "validation") for folder in _named(directory, part)]
    if {part for _, part in divided} == {"train", "validation"}:
        found: list[tuple[Path, int, str | None]] = [
            (c, label, part) for folder, part in divided for name, label in CLASSES.items() for c in _named(folder, name)
        ]
        if len({(label, part) for _, label, part in found}) == 4:
            return found
    flat: list[tuple[Path, int, str | None]] = [
        (c, label, None) for name, label in CLASSES.items() for c in _named(directory, name)
    ]
    if len({label for _, label, _ in flat}) == 2:
        return flat
    raise DataProblem(f"--data {directory}: found {_listing(directory)}; {_LAYOUTS}")


def _named(directory: Path, name: str) -> list[Path]:
    return sorted(entry for entry in directory.iterdir() if entry.is_dir() and entry.name.lower() == name)


def _listing(directory: Path) -> str:
    """What a folder holds, two levels deep, in a line."""
    entries = []
    for folder in sorted(e for e in directory.iterdir() if e.is_dir()):
        inside = sorted(e.name + "/" for e in folder.iterdir() if e.is_dir())
        entries.append(f"{folder.name}/" + (f" (with {', '.join(inside[:6])})" if inside else ""))
    files = sum(e.is_file() for e in directory.iterdir())
    shown = ", ".join(entries[:8]) + (f" and {len(entries) - 8} more folders" if len(entries) > 8 else "")
    return (shown or "no folders") + (f" and {files} files" if files else "")


def fingerprint(photos: Sequence[Photo], *, progress: bool = False) -> str:
    """SHA-256 over each photo's name and content hash, in order of name: the same photos give the same, wherever they lie."""
    with ThreadPoolExecutor() as pool:  # hashing and reading release the interpreter lock
        hashes = tqdm(
            pool.map(lambda photo: sha256(photo.path), photos),
            total=len(photos),
            desc="reading photos",
            unit="photo",
            disable=not progress,
            leave=False,
        )
        digest = hashlib.sha256()
        for photo, content in zip(photos, hashes, strict=True):
            digest.update(f"{photo.name}\0{content}\n".encode())
    return digest.hexdigest()


def divide(photos: Sequence[Photo], readable: NDArray[np.bool_], *, tune: float, calibrate: float, seed: int) -> Parts:
    """Divide readable photos into parts, each class on its own, so that all parts have the classes' proportions.

    `tune` and `calibrate` are fractions of the training photos. Validation is the folder's own, or a fifth of a folder that is
    not divided. The division depends on the names, the fractions and the seed alone. Raises `DataProblem` for too few photos.
    """
    rng = np.random.default_rng(seed)
    divided = any(photo.part == "validation" for photo in photos)
    rows: dict[str, list[NDArray[np.int64]]] = {"fit": [], "tune": [], "calibrate": [], "validation": []}
    for name, label in CLASSES.items():
        of_class = [i for i, photo in enumerate(photos) if photo.label == label and readable[i]]
        train = rng.permutation([i for i in of_class if photos[i].part != "validation"]).astype(np.int64)
        own = np.array([i for i in of_class if photos[i].part == "validation"], np.int64)
        if not divided:
            n = round(VALIDATION_FRACTION * len(train))
            own, train = train[:n], train[n:]
        if len(train) < FEWEST or len(own) < 2:
            raise DataProblem(
                f"{len(train)} readable {name} photos for training and {len(own)} for validation; "
                f"at least {FEWEST} and 2 of each class are needed"
            )
        for_tuning = max(1, round(tune * len(train)))
        for_calibration = max(1, round(calibrate * len(train))) if calibrate else 0
        rows["tune"].append(train[:for_tuning])
        rows["calibrate"].append(train[for_tuning : for_tuning + for_calibration])
        rows["fit"].append(train[for_tuning + for_calibration :])
        rows["validation"].append(own)
    return Parts(**{part: np.sort(np.concatenate(pieces)) for part, pieces in rows.items()})


def counts(parts: Parts, labels: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Photos of each class in each part."""
    return {
        part: {name: int((labels[rows] == label).sum()) for name, label in CLASSES.items()} for part, rows in parts.items()
    }


def unreadable_warning(unreadable: Mapping[str, str], total: int, shown: int = 10) -> str:
    """A warning that names files which can't be used, and why."""
    lines = [f"warning: {len(unreadable)} of {total} files can't be read and are skipped:"]
    lines += [f"  {name}: {reason}" for name, reason in list(unreadable.items())[:shown]]
    if len(unreadable) > shown:
        lines.append(f"  … and {len(unreadable) - shown} more; metrics.json names them all")
    return "\n".join(lines)
