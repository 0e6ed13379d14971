"""CPU lock: lets a worker use all CPUs for single photos while no other worker on the machine computes."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Under load a worker holds the lock alone by chance now and then, and another one starts before it ends.
UNCONTENDED_RUNS = 3


class CpuLock:
    """A lock file that all workers share. The kernel releases the lock of a worker that dies."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._uncontended = 0

    @contextmanager
    def hold(self, *, single: bool) -> Iterator[bool]:
        """Hold the lock while the block computes. Yields whether it should use all CPUs; never waits.

        single: whether it computes a single photo. It gets all CPUs while it holds the lock exclusively, after
        `UNCONTENDED_RUNS` in a row that did too.
        """
        exclusive = single and self._lock(fcntl.LOCK_EX)
        if not exclusive:
            self._lock(fcntl.LOCK_SH)  # fails beside an exclusive holder, which ends soon
        self._uncontended = self._uncontended + 1 if exclusive else 0
        try:
            yield self._uncontended > UNCONTENDED_RUNS
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _lock(self, kind: int) -> bool:
        with suppress(BlockingIOError):
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
            return True
        return False
