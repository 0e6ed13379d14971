"""The workers' metrics, read from prometheus_client's multiprocess files; no broken or missing file keeps one from reading."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from serve.logs.log import Emit

IN_PROGRESS = "unmask_requests_in_progress"
BROKEN = (OSError, ValueError, TypeError, LookupError, RuntimeError, struct.error)  # what an unreadable file raises
DEAD = "0"  # the process id in the names of the files that hold what dead workers have counted
ATTEMPTS = 3


class WorkerFiles:
    """The files of one server's workers.

    folder: where workers make their files. kept: a folder on the same file system for hard links to them, by which a file is
    still read after somebody has removed it. emit: takes one line for each broken file.
    """

    def __init__(self, folder: Path, kept: Path, emit: Emit) -> None:
        self._folder, self._kept, self._emit = folder, kept, emit
        self._lock = threading.RLock()  # a scrape sees a dead worker's numbers in one file or the other
        self._told: set[str] = set()

    def collect(self) -> Iterable[Metric]:
        """The metrics of all workers, dead ones included, added up."""
        return self._merged("")

    def _merged(self, kind: str) -> Iterable[Metric]:
        """The metrics in the files whose names begin with `kind`."""
        with self._lock:
            for _ in range(ATTEMPTS):
                files = [str(file) for file in self._files() if file.name.startswith(kind) and self._good(file)]
                with contextlib.suppress(*BROKEN):  # a file went while the others were read
                    return list(MultiProcessCollector.merge(files, accumulate=True))  # type: ignore[no-untyped-call]
        return []

    def requests_in_progress(self) -> int:
        """Requests that the workers have in hand: TorchServe's own queue length does not count them."""
        for family in self._merged("gauge"):  # the drain asks twenty times a second
            if family.name == IN_PROGRESS:
                return int(sum(sample.value for sample in family.samples))
        return 0

    def bury(self, alive: Callable[[], Collection[int]]) -> None:
        """Add what dead workers counted to the files of all dead ones, and remove theirs.

        alive: tells the process ids of those that live. It is called after the files are listed, so that a new worker's file
        is not taken for a dead one's.
        """
        with self._lock:
            files = [file for file in self._files() if _process(file) != DEAD]
            living = {str(pid) for pid in alive()} if files else set()
            for file in files:
                if _process(file) not in living:
                    (self._folder / file.name).unlink(missing_ok=True)
                    self._merge(file)

    def _merge(self, file: Path) -> None:
        kind = file.name.partition("_")[0]
        if kind in ("counter", "histogram", "summary") and self._good(file):
            total = MmapedDict(str(self._kept / f"{kind}_{DEAD}.db"))  # type: ignore[no-untyped-call]
            try:
                for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                    total.write_value(key, total.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
            finally:
                total.close()  # type: ignore[no-untyped-call]
        file.unlink(missing_ok=True)
        self._told.discard(file.name)

    def _good(self, file: Path) -> bool:
        """Whether a file can be read; one that can't be is told once, since it stays as it is."""
        try:
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):  # type: ignore[no-untyped-call]
                name, sample, labels, text = json.loads(key)
                if not (isinstance(labels, dict) and all(isinstance(each, str) for each in (name, sample, text))):
                    raise ValueError(f"{key!r} names no metric")
                float(value)
        except FileNotFoundError:
            return False
        except BROKEN as error:
            if file.name not in self._told:
                self._told.add(file.name)
                self._emit("metrics_file_skipped", "warning", file=file.name, reason=str(error) or type(error).__name__)
            return False
        return True

    def _files(self) -> list[Path]:
        """All files: the links, and a file itself where it can't be linked.

        The folders are made again where somebody removed them: a worker can't start without.
        """
        for folder in (self._folder, self._kept):
            folder.mkdir(parents=True, exist_ok=True)
        files = {}
        for file in self._folder.glob("*.db"):
            kept = self._kept / file.name
            try:
                if kept.exists() and not kept.samefile(file):  # made anew after somebody removed it, or by a later process
                    self._merge(kept)
                if not kept.exists():
                    os.link(file, kept)
            except OSError:  # a file system without links, or the file is gone
                files[file.name] = file
        files.update({kept.name: kept for kept in self._kept.glob("*.db")})
        return [files[name] for name in sorted(files)]


def _process(file: Path) -> str:
    """The process id in the name of a file, such as counter_123.db or gauge_livesum_123.db."""
    return file.stem.rpartition("_")[2]
