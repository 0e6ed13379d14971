"""What the JVM prints: its own log and what its workers print, read from a pipe at once, so that the JVM never waits."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from serve.logs.log import Emit
from serve.settings import MODEL

LINE = re.compile(r"(FATAL|ERROR|WARN|INFO|DEBUG|TRACE)\t([^\t]*)\t([^\t]*)\t(.*)")  # as the rendered log4j2.xml has it
WORKER = re.compile(rf"W-\d+-{MODEL}_(?P<version>.+?)(-std(out|err))?")  # TorchServe's names of a worker's threads
WORKER_LOGGER = "MODEL_LOG"
# What comes with every start and says nothing: of a worker, at a level that the JVM can't tell from another; and of the JVM,
# which warns of its own libraries.
ROUTINE = re.compile(
    r"s_name_part0=|Listening on port: |Successfully loaded .*metrics\.yaml|\[PID\]|Torch worker started\.|Python runtime: "
    r"|Connection accepted: |model_name: |WARNING: |nvidia-smi not available|Model archive createdOn|Model server started\."
)
LEVELS = {"FATAL": "error", "ERROR": "error", "WARN": "warning", "INFO": "info", "DEBUG": "debug", "TRACE": "debug"}
REMEMBERED = 2000  # lines, for the reason of a start that fails
LONGEST = 2**16  # bytes of a line
PIPE_BYTES = 2**20


@dataclass(frozen=True)
class Line:
    """One line of the JVM. level: as `Emit` has it. logger and thread: empty for what did not come through its log."""

    level: str
    logger: str
    thread: str
    message: str

    @classmethod
    def of(cls, text: str) -> Line:
        """Take a printed line apart."""
        if (found := LINE.fullmatch(text)) is None:
            return cls("warning", "", "", text)
        level, logger, thread, message = found.groups()
        with contextlib.suppress(ValueError):
            message = json.loads(f'"{message}"')
        return cls(LEVELS[level], logger, thread, message.rstrip())

    @property
    def version(self) -> str | None:
        """The version whose worker printed it, or whose worker's thread it comes from."""
        found = WORKER.fullmatch(self.thread)
        return found["version"] if found else None

    @property
    def of_worker(self) -> bool:
        """Whether a worker printed it."""
        return self.logger == WORKER_LOGGER


class JvmOutput:
    """Reads a JVM's output in a thread of its own, remembers the last lines, and logs what is worth it.

    emit: takes the lines. quiet: leave out what comes with every start. watch: is called with each line.
    """

    def __init__(self, emit: Emit, watch: Callable[[Line], object], *, quiet: bool) -> None:
        self._emit, self._watch, self._quiet = emit, watch, quiet
        self._lines: deque[Line] = deque(maxlen=REMEMBERED)
        self._reading, self.writing = os.pipe()  # `writing` is for the JVM
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self._reading, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._thread = threading.Thread(target=self._run, name="jvm-output", daemon=True)

    def start(self) -> None:
        """Begin to read, once the JVM has its end of the pipe."""
        os.close(self.writing)
        self._thread.start()

    def lines(self) -> list[Line]:
        """The last lines, the newest one last."""
        return list(self._lines)

    def finish(self, seconds: float = 1.0) -> None:
        """Wait until everything is read that a JVM which has ended has left."""
        self._thread.join(seconds)

    def _run(self) -> None:
        with os.fdopen(self._reading, "rb", buffering=2**16) as output:
            while data := output.readline(LONGEST):
                text = data.decode("utf-8", errors="replace").rstrip("\r\n")
                if text.strip():
                    self._take(Line.of(text))

    def _take(self, line: Line) -> None:
        self._lines.append(line)
        self._watch(line)
        if self._quiet and ROUTINE.match(line.message):
            return
        if line.of_worker:
            self._emit("worker", line.level, message=line.message, version=line.version)
        else:
            source = {"logger": line.logger, "thread": line.thread} if line.logger else {}
            self._emit("torchserve", line.level, message=line.message, **source)
