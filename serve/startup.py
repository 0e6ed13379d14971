"""The way up: until the workers are ready, or until it is known why they will not be."""

from __future__ import annotations

import subprocess
import threading
import time

from serve.errors import StartupFailed
from serve.logs.causes import last_line, worker_exception
from serve.logs.jvm_output import JvmOutput
from serve.settings import Settings
from serve.torchserve.management import ModelStatus
from serve.torchserve.render import Layout
from serve.watch import Watch

POLL_SECONDS = 0.1


def await_ready(settings: Settings, layout: Layout, watch: Watch, output: JvmOutput, stop: threading.Event) -> None:
    """Wait until all workers are ready or the server is told to stop. Raises `StartupFailed` with the reason."""
    deadline = time.monotonic() + settings.startup_timeout
    assert watch.jvm is not None
    while not stop.wait(POLL_SECONDS):
        status = watch.look()
        if status is not None and status.complete:
            return
        if reason := _failure(layout, status, watch.jvm, output):
            raise StartupFailed(reason)
        if time.monotonic() > deadline:
            said = last_line(output.lines())
            raise StartupFailed(
                f"the workers were not ready after {settings.startup_timeout} s; TorchServe's last line: {said}"
            )


def _failure(layout: Layout, status: ModelStatus | None, jvm: subprocess.Popen[bytes], output: JvmOutput) -> str | None:
    """Why the model will never be ready, None as long as it may; TorchServe itself would retry for five minutes."""
    if layout.load_error.is_file() and (message := layout.load_error.read_text(encoding="utf-8")):
        return f"the worker can't load the model: {message}"
    if cause := worker_exception(output.lines()):
        return f"the worker died while it loaded the model: {cause}"
    if (code := jvm.poll()) is not None:
        output.finish()
        return f"TorchServe ended with {code}: {last_line(output.lines())}"
    if status is not None and not status.registered:
        return f"TorchServe did not take the archive: {last_line(output.lines())}"
    return None
