"""One JSON line for each request, written to the supervisor's pipe before the answers leave the worker."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_BYTES = 4096  # a write of at most PIPE_BUF bytes goes into a pipe whole or not at all (POSIX, write)


class RequestRecords:
    """Writes records to a FIFO and never waits: what does not fit is lost, and the supervisor counts it as such.

    path: of the FIFO; without it nothing is written.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._pipe: int | None = None

    def write(self, records: Iterable[dict[str, Any]]) -> None:
        """Write a line for each record; several share a write."""
        if self._path is None:
            return
        pending = b""
        for record in records:
            line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
            if len(pending) + len(line) > MAX_BYTES:
                self._send(pending)
                pending = b""
            pending += line
        self._send(pending)

    def _send(self, lines: bytes) -> None:
        if not lines or len(lines) > MAX_BYTES:
            return
        try:
            if self._pipe is None:
                assert self._path is not None
                self._pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(self._pipe, lines)
        except BlockingIOError:
            pass  # full: the reader is behind, and a request does not wait for it
        except OSError:  # there is no reader, or no pipe; perhaps there is one again for the next batch
            if self._pipe is not None:
                with contextlib.suppress(OSError):
                    os.close(self._pipe)
                self._pipe = None
