"""A load generator's process: started, followed with a progress bar, and ended in any case."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.errors import LoadFailed

ROOT = Path(__file__).resolve().parents[2]
FINISH_SECONDS = 30  # limit for answers to requests that are in flight at the end; they count
EXIT_SECONDS = 15  # limit for the process's own start and stop


def run_process(
    module: Sequence[str], samples: Path, *, scratch: Path, seconds: float, label: str, finish: float = FINISH_SECONDS
) -> str:
    """Run `python -m MODULE...` until it has written `samples`; returns what it wrote.

    scratch: a folder for its log. seconds: of load. label: of the progress bar. finish: seconds that it may take afterwards.
    Raises `LoadFailed` with the end of its log when it fails. Its process is ended on Ctrl-C.
    """
    log = scratch / "load.log"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with log.open("wb") as output:
        # In a session of its own, Ctrl-C in a terminal does not reach it; `_end` stops it.
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=scratch,  # Locust reads locust.conf and pyproject.toml of the folder it is in
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        try:
            code = _wait(process, seconds, finish, label)
        finally:
            _end(process)
    if code != 0 or not samples.is_file():
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        raise LoadFailed(f"the load generator ended with exit code {code} before it could report:\n{tail}")
    return samples.read_text(encoding="utf-8")


def _wait(process: subprocess.Popen[bytes], seconds: float, finish: float, label: str) -> int:
    """Wait for the process with a progress bar, and return its exit code."""
    deadline = time.monotonic() + seconds + finish + EXIT_SECONDS
    whole = max(1, round(seconds))
    with tqdm(total=whole, desc=label, unit="s", bar_format="{desc} {bar} {n_fmt}/{total_fmt} s") as bar:
        began = time.monotonic()
        while True:
            try:
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                bar.update(min(int(time.monotonic() - began), whole) - bar.n)
            if time.monotonic() > deadline:
                raise LoadFailed(f"the load generator has not ended {finish + EXIT_SECONDS:.0f} s after its time")


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
