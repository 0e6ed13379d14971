"""Named pipes that the frontend and the workers write lines to, read in a thread of the supervisor's."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from serve.processes.priorities import lower_this_thread

PIPE_BYTES = 2**20  # the most that an unprivileged process may ask for (/proc/sys/fs/pipe-max-size)
LINE_BYTES = 2**16  # no writer has a longer line: the frontend's request line and headers have 4 + 8 KiB at most
READ_BYTES = 2**16  # more would be a mapping of its own for each read
TURN_BYTES = 2**24  # the most of one pipe in one turn, so that a flood does not keep the thread from everything else
# Lines come one at a time and cost less together: the first one of a turn takes a quarter of a millisecond, each other one
# 15 microseconds. A pipe that is smaller is emptied more often.
GATHER_SECONDS = 0.2
TURN_SECONDS = 0.5  # how often there is a turn without a line, for what is due by time


class Pipe:
    """A named pipe and the lines in it. Not for several threads at once.

    It is open for reading and writing: a writer never waits for a reader, and the last writer's end is no end of file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # the user's pipes have as many pages as they may: 64 KiB stay
            fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.size = fcntl.fcntl(self.descriptor, fcntl.F_GETPIPE_SZ)
        self._rest = b""
        self._skipping = False
        self._lost = 0

    def lines(self) -> list[bytes]:
        """The whole lines that wait, without their ends; what is left of the last one comes with its end."""
        chunks, size = [self._rest], 0
        try:
            while size < TURN_BYTES:
                chunks.append(os.read(self.descriptor, READ_BYTES))
                size += len(chunks[-1])
                if len(chunks[-1]) < READ_BYTES:
                    break  # it is empty now
        except BlockingIOError:
            if not size:
                return []
        *lines, self._rest = b"".join(chunks).split(b"\n")
        if self._skipping and lines:
            del lines[0]  # the end of a line that was too long
            self._skipping = False
        if len(self._rest) > LINE_BYTES:
            self._lost += not self._skipping
            self._rest, self._skipping = b"", True
        return [line for line in lines if line]

    def take_lost(self) -> int:
        """The lines that were too long to keep since this was asked last."""
        lost, self._lost = self._lost, 0
        return lost

    def wake(self) -> None:
        """Make the pipe readable, with a line that is empty and so comes to nothing."""
        with contextlib.suppress(BlockingIOError):  # it is full, and so readable
            os.write(self.descriptor, b"\n")

    def close(self) -> None:
        """Close and remove the pipe."""
        os.close(self.descriptor)
        self._path.unlink(missing_ok=True)


class Reader:
    """A thread that calls `turn` soon after a line has come to one of `pipes`, and now and then without one."""

    def __init__(self, pipes: Sequence[Pipe], turn: Callable[[], None]) -> None:
        self._pipes, self._turn = pipes, turn
        self._gather = GATHER_SECONDS * min(pipe.size for pipe in pipes) / PIPE_BYTES
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; the pipes stay open."""
        self._over.set()
        self._pipes[0].wake()
        self._thread.join()

    def _run(self) -> None:
        lower_this_thread()
        poll = select.poll()
        for pipe in self._pipes:
            poll.register(pipe.descriptor, select.POLLIN)
        while not self._over.is_set():
            poll.poll(1000 * TURN_SECONDS)
            self._turn()
            self._over.wait(self._gather)
