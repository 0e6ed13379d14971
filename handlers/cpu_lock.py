"""Turns: of several workers on the same CPUs, one that computes while no other does may use them all."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Turns:
    """Known to all workers by a file that they lock; a worker that dies gives its lock back."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")

    @contextmanager
    def take(self, *, alone: bool) -> Iterator[bool]:
        """Compute inside; gives whether the CPUs are this worker's own, asked for with `alone`. Nobody ever waits."""
        own = alone and self._lock(fcntl.LOCK_EX)
        if not own:
            self._lock(fcntl.LOCK_SH)  # not to be had beside one that computes alone, who will be done soon
        try:
            yield own
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock(self, kind: int) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            return True
        return False
