"""The score table of a run: each photo's part, content hash and scores, as `scores.csv` beside the report."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.calibration import CalibrationCurve
from detector.errors import FileError
from detector.files import atomic_write, shown
from training.data.photos import CLASSES, Photo, content_hash

FILE = "scores.csv"
_COLUMNS = ("name", "label", "part", "sha256", "raw", "calibrated")
_NAMES = {label: name for name, label in CLASSES.items()}


@dataclass(frozen=True)
class ScoreTable:
    """One row for each photo of a run. labels: int64[n]. raw: float32[n], NaN for photos that were fitted or tuned on."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    parts: tuple[str, ...]
    hashes: tuple[str, ...]
    raw: NDArray[np.float32]

    def of(self, *parts: str) -> ScoreTable:
        """The rows of some parts."""
        return self.rows(np.array([i for i, part in enumerate(self.parts) if part in parts], np.int64))

    def rows(self, rows: NDArray[np.int64]) -> ScoreTable:
        """These rows, in this order."""
        names, parts, hashes = (tuple(column[i] for i in rows) for column in (self.names, self.parts, self.hashes))
        return ScoreTable(names, self.labels[rows], parts, hashes, self.raw[rows])

    def with_raw(self, rows: NDArray[np.int64], raw: NDArray[np.float32]) -> ScoreTable:
        """The table with scores in these rows."""
        values = self.raw.copy()
        values[rows] = raw
        return replace(self, raw=values)

    def save(self, directory: Path, curve: CalibrationCurve) -> None:
        """Write `scores.csv`, with what `curve` makes of each score; float32 survives the trip exactly."""
        with atomic_write(directory / FILE) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(_COLUMNS)
            for name, label, part, content, raw, calibrated in zip(
                self.names, self.labels, self.parts, self.hashes, self.raw, curve(self.raw), strict=True
            ):
                scores = ("", "") if np.isnan(raw) else (f"{raw:.9g}", f"{calibrated:.9g}")
                table.writerow((name, _NAMES[int(label)], part, content, *scores))

    @classmethod
    def load(cls, directory: Path) -> ScoreTable:
        """Read a run's table; raises `FileError` when it is missing or no such table."""
        path = directory / FILE
        try:
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            return cls(
                tuple(row["name"] for row in rows),
                np.array([CLASSES[row["label"]] for row in rows], np.int64),
                tuple(row["part"] for row in rows),
                tuple(row["sha256"] for row in rows),
                np.array([float(row["raw"]) if row["raw"] else np.nan for row in rows], np.float32),
            )
        except FileNotFoundError:
            raise FileError(f"{shown(path)}: no such file; `unmask train` writes it into a run folder") from None
        except (OSError, KeyError, ValueError, TypeError, csv.Error):
            raise FileError(f"{shown(path)}: is not a score table with the columns {', '.join(_COLUMNS)}") from None


def content_hashes(photos: Sequence[Photo]) -> tuple[str, ...]:
    """SHA-256 of each photo's file."""
    with ThreadPoolExecutor() as pool:
        return tuple(pool.map(content_hash, photos))
