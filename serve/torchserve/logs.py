"""The few lines of the logs that say why something did not start."""

from __future__ import annotations

from pathlib import Path

WORKER_DIED = "Backend worker process died"  # what TorchServe's worker prints before the traceback


def worker_exception(log: Path) -> str | None:
    """The exception that a worker first died of, None when none did or its traceback is still being written.

    The first of a chain is the cause: TorchServe's loader turns a failed import inside a handler into one of the handler.
    """
    lines = [_message(line) for line in _read(log).splitlines()]
    start = next((i for i, line in enumerate(lines) if line.startswith(WORKER_DIED)), None)
    if start is None:
        return None
    traceback = (line for line in lines[start + 1 :] if line and not line.startswith((" ", "Traceback")))
    return next(traceback, None)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty."""
    lines = [_message(line).strip() for line in _read(log).splitlines()]
    return next((line for line in reversed(lines) if line), f"see {log}")


def _message(line: str) -> str:
    """A line without the time, level and logger that log4j puts before ` - `."""
    return line.partition(" - ")[2] if line[:2].isdigit() and " - " in line else line


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
