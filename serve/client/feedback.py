"""Sends labels of scored photos to a server on this machine."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx

from detector.errors import FileError, UsageError
from serve.errors import ServerUnreachable

COLUMNS = ("version", "score", "label")
AT_ONCE = 1000


def send_labels(supervisor_url: str, labels: Sequence[dict[str, Any]]) -> int:
    """Send labels, each with `version`, `score` and `label`, and return how many were taken.

    They go in parts of a thousand; those before a part that is refused are taken. Raises `UsageError` with the server's
    reason, and `ServerUnreachable`.
    """
    taken = 0
    with httpx.Client(timeout=30, trust_env=False) as client:
        for start in range(0, len(labels), AT_ONCE):
            try:
                answer = client.post(f"{supervisor_url}/feedback", json=labels[start : start + AT_ONCE])
                said = answer.json()
            except (httpx.HTTPError, ValueError) as error:
                raise ServerUnreachable(f"the supervisor does not answer ({error or type(error).__name__})") from None
            if not answer.is_success:
                before = f"; the {taken} before were taken" if taken else ""
                raise UsageError(f"{said.get('error', 'the server takes no labels')}{before}")
            taken += int(said["labels"])
    return taken


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Labels from a CSV file with a header and the columns version, score and label, in any order.

    Raises `FileError` that names the line. What the values may be is the server's to say, except that a score is a number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise FileError(f"{path}: has no column {missing[0]!r}; these are wanted: {', '.join(COLUMNS)}")
            return list(_labels(path, reader))
    except OSError as error:
        raise FileError(f"{path}: can't be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error):
        raise FileError(f"{path}: is no CSV file in UTF-8") from None


def _labels(path: Path, rows: Iterable[dict[str, str | None]]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 2):
        version, score, label = ((row[name] or "").strip() for name in COLUMNS)
        try:
            yield {"version": version, "score": float(score), "label": label.lower()}
        except ValueError:
            raise FileError(f"{path}, line {number}: score {score!r} is no number") from None
