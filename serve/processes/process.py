"""Child processes that can't outlive their parent, and that are ended with all of their group."""

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

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_LEAVING_SECONDS = 1.0  # for the rest of a group to leave by itself when its leader is gone and its sockets close
_KILLED_SECONDS = 20.0  # for the kernel to end what was killed


def adopt_orphans() -> None:
    """Make this process the parent of its orphaned descendants (Linux), so that it can wait for them."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start(arguments: list[str], environment: dict[str, str], directory: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a process in its own group and session, which the terminal's Ctrl-C does not reach.

    On Linux the kernel kills it when the calling thread ends, so call this from the main thread.
    """
    parent_death = [sys.executable, "-I", "-S", str(Path(__file__).with_name("parent_death.py")), str(os.getpid())]
    return subprocess.Popen(
        [*parent_death, *arguments] if sys.platform == "linux" else arguments,
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """End a process and all of its group.

    TERM goes to the leader, and KILL if it is still there after `patience` seconds. The others have a second more.
    """
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    leader_gone = time.monotonic()
    while _group_lives(process.pid) and (waited := time.monotonic() - leader_gone) < _LEAVING_SECONDS + _KILLED_SECONDS:
        if waited > _LEAVING_SECONDS:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.02)


def _group_lives(group: int) -> bool:
    """Whether any process of a group is left, after reaping those that are children of this one."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
