"""Scheduling priorities: what takes requests in, refuses and counts them yields to the workers, which answer them (Linux).

A refusal costs a fraction of an answer, and clients that ask again at once bring any number of them: with equal priorities
they take the CPUs. See `docs/explanation/performance.md`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path

NICENESS = 15
# The JVM's threads for connections, by the first characters of their names. Its threads that start workers are not among them,
# since a process inherits the niceness of the thread that starts it.
_INTAKE = ("epollEventLoop", "nioEventLoop", "grpc-default-")


class Intake:
    """The JVM's threads for connections. pid: of the JVM."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._tasks = Path(f"/proc/{pid}/task")
        self._seen: set[str] = set()

    def lower(self) -> None:
        """Lower the priority of those that are new; call it again and again, as the JVM starts them when it needs them."""
        with contextlib.suppress(OSError):  # no Linux, or the JVM has ended
            tasks = {path.name for path in self._tasks.iterdir()}
            for task in tasks - self._seen:
                if (self._tasks / task / "comm").read_text(encoding="utf-8").startswith(_INTAKE):
                    _lower(int(task), self._pid)
            self._seen = tasks


def lower_this_thread() -> None:
    """Lower the priority of the calling thread."""
    if sys.platform == "linux":
        _lower(threading.get_native_id(), os.getpid())


def _lower(thread: int, process: int) -> None:
    """Make a thread nicer than its process's first one; the kernel stops at 19."""
    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, process) + NICENESS)
