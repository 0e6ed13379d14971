"""The log: one line for each event, as JSON or as text; a thread of its own writes, so nobody waits for a slow reader."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Protocol

from prometheus_client.core import Metric

from detector.errors import FileError
from serve.metrics.declared import SupervisorMetric, family

LEVELS = ("debug", "info", "warning", "error")
QUEUE_LINES = 20_000
FILE_BYTES = 10 * 2**20
OLD_FILES = 3
CLOSING_SECONDS = 2.0  # for the last lines, when whoever reads them is slow


class Emit(Protocol):
    """Logs one event."""

    def __call__(self, event: str, level: str = "info", **fields: object) -> None:
        """event: a fixed name, by which lines are found. level: debug, info, warning or error. fields: JSON values.

        The field `message`, where there is one, is a sentence for people: text shows it alone.
        """


Form = Callable[[dict[str, object]], str]
Sink = Callable[[str], None]


class Log:
    """Writes events to standard output, and to a file where one is named.

    form: json or text; auto is text at a terminal and JSON elsewhere. file: gets JSON, is appended to, and begins anew at
    10 MiB, when three earlier ones are kept. stream: a file descriptor, standard output's by default.
    Raises `FileError` when the file can't be written.
    """

    def __init__(self, form: str = "auto", file: Path | None = None, stream: int | None = None) -> None:
        self._stream = sys.stdout.fileno() if stream is None else stream
        self.as_json = form == "json" or (form == "auto" and not os.isatty(self._stream))
        self._sinks: list[tuple[Form, Sink]] = [(as_json if self.as_json else as_text, self._write)]
        self._file = None if file is None else _rotating(file)
        self._path = "" if file is None else str(file.resolve())
        if self._file is not None:
            self._sinks.append((as_json, self._append))
        self._lines: queue.Queue[dict[str, object] | None] = queue.Queue(QUEUE_LINES)
        self._lost = self._told = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def place(self) -> str:
        """Where the log is: the path of its file, or "standard output"."""
        return self._path or "standard output"

    def collect(self) -> Iterable[Metric]:
        """How many lines were not written, as they came faster than they are read."""
        dropped = family(SupervisorMetric.LOG_LINES_DROPPED)
        dropped.add_metric([], self._lost)
        return [dropped]

    def emit(self, event: str, level: str = "info", **fields: object) -> None:
        """Log one event; never waits. See `Emit`."""
        line = {"time": time.time(), "level": level, "event": event} | fields
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what waits, for two seconds at most."""
        try:
            self._lines.put(None, timeout=CLOSING_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSING_SECONDS)
        if self._file is not None and not self._thread.is_alive():
            self._file.close()

    def _run(self) -> None:
        while (line := self._lines.get()) is not None:
            self._out(line)
            if (lost := self._lost) > self._told:
                self._out({"time": time.time(), "level": "warning", "event": "log_lines_dropped", "lines": lost - self._told})
                self._told = lost

    def _out(self, line: dict[str, object]) -> None:
        for form, sink in self._sinks:
            sink(form(line) + "\n")

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", errors="backslashreplace")
        try:
            while data:
                data = data[os.write(self._stream, data) :]
        except OSError:  # nobody reads any more, or the disk is full
            self._lost += 1
            self._told += 1

    def _append(self, text: str) -> None:
        assert self._file is not None
        self._file.handle(logging.makeLogRecord({"msg": text}))


def as_json(line: dict[str, object]) -> str:
    """A line as one JSON object; times are UTC."""
    at = datetime.fromtimestamp(_seconds(line), timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps(line | {"time": at}, ensure_ascii=False, default=str)


def as_text(line: dict[str, object]) -> str:
    """A line for people: local time, level, and the message, or the event and its fields where there is none."""
    at = datetime.fromtimestamp(_seconds(line)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    fields = {name: value for name, value in line.items() if name not in ("time", "level", "event", "message")}
    words = line.get("message") or " ".join(
        [str(line["event"]), *(f"{name}={_short(value)}" for name, value in fields.items())]
    )
    level = "" if line["level"] == "info" else f"{line['level']}: "
    return f"{at} {level}{words}"


def _seconds(line: dict[str, object]) -> float:
    at = line["time"]
    assert isinstance(at, float)
    return at


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if text and " " not in text else json.dumps(text, ensure_ascii=False)


def _rotating(file: Path) -> RotatingFileHandler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handler = RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=OLD_FILES, encoding="utf-8")
    except OSError as error:
        raise FileError(f"{file}: can't be written ({error.strerror}); name another with --log-file") from None
    handler.terminator = ""  # a line has its own
    handler.handleError = lambda record: None  # type: ignore[method-assign] # a full disk: standard output still has the line
    return handler
