"""Child processes that can't outlive their parent, and whole groups of them ended for certain."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def adopt_orphans() -> None:
    """Make this process the parent of its orphaned descendants (Linux), so that it can wait for them."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(arguments: list[str], environment: dict[str, str], directory: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a process as the leader of a group of its own, out of reach of the terminal's Ctrl-C.

    On Linux the kernel kills it when the calling thread ends, so call this from the main thread.
    """
    return subprocess.Popen(
        arguments,
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_die_with_parent if _LIBC is not None else None,
    )


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """End a process and all of its group: TERM to the leader, then KILL to whoever is left after `patience` seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    deadline = time.monotonic() + min(patience, 1.0)  # the others leave by themselves when their sockets close
    while _group_lives(process.pid):
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.02)


def _group_lives(group: int) -> bool:
    """Whether anything is left of the group of a leader that has been waited for, after burying those that are ours."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _die_with_parent() -> None:
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
