"""The few lines of the JVM's output that say why something did not start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from serve.logs.jvm_output import Line

WORKER_DIED = "Backend worker process died"  # what TorchServe's worker prints before the traceback


def worker_exception(lines: Iterable[Line]) -> str | None:
    """The exception that a worker first died of, None when none did or its traceback is still being written.

    The first of a chain is the cause: TorchServe's loader turns a failed import inside a handler into one of the handler.
    """
    thread = None
    for line in lines:
        if thread is None and line.of_worker and line.message.startswith(WORKER_DIED):
            thread = line.thread
        elif line.of_worker and line.thread == thread and not line.message.startswith((" ", "Traceback")):
            return line.message
    return None


def last_line(lines: Sequence[Line]) -> str:
    """The last line of the JVM itself."""
    own = [line.message for line in lines if not line.of_worker]
    return own[-1].splitlines()[0] if own else "it has printed nothing"
