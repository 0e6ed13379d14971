"""The raw samples of a benchmark: every request of every load, in one compressed JSON file beside the report."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.errors import FileError
from detector.files import atomic_write, shown

NAME = "samples.json.gz"
FORMAT = 1
REPORT = "report.json"
_SERIES = ("started", "milliseconds", "problems")


@dataclass(frozen=True)
class Recorded:
    """The requests of one load. started: seconds since the epoch. milliseconds: latency. problems: "" for a right answer.
    rate: planned requests per second of an open loop, None for a closed one."""

    name: str
    started: Sequence[float]
    milliseconds: Sequence[float]
    problems: Sequence[str]
    rate: float | None = None


@dataclass(frozen=True)
class SampleFile:
    """What a file of samples holds. about: commit, machine, model, as the report has them."""

    path: Path
    about: dict[str, Any]
    runs: tuple[Recorded, ...]

    def named(self, name: str) -> list[Recorded]:
        """The loads of that name; there are several where a load was repeated in rounds."""
        return [run for run in self.runs if run.name == name]


def write_samples(path: Path, about: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> None:
    """Write loads, each with its `name` and its samples as JSON values; the file is whole or not there."""
    text = json.dumps({"format": FORMAT, "about": dict(about), "runs": list(runs)}, separators=(",", ":"), allow_nan=False)
    with atomic_write(path) as partial, partial.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
        packed.write(text.encode())


def read_samples(path: Path) -> SampleFile:
    """The samples of a report's folder, of its report.json, or of a file of samples, compressed or not.

    Raises `FileError` for anything else.
    """
    file = path / NAME if path.is_dir() else path.with_name(NAME) if path.name == REPORT else path
    if not file.is_file():
        raise FileError(f"{shown(file)}: no such file; give a folder that `unmask bench run` or `unmask bench peers` wrote")
    try:
        data = file.read_bytes()
        values = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
        runs = tuple(_recorded(run) for run in values["runs"])
        about = dict(values["about"])
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{shown(file)}: holds no samples of a benchmark ({type(error).__name__}: {error})") from None
    return SampleFile(file, about, runs)


def _recorded(run: Mapping[str, Any]) -> Recorded:
    started, milliseconds, problems = (run[key] for key in _SERIES)
    if not len(started) == len(milliseconds) == len(problems):
        raise ValueError(f"{run['name']}: the lists of samples differ in length")
    rate = run.get("rate")
    return Recorded(str(run["name"]), started, milliseconds, problems, None if rate is None else float(rate))
