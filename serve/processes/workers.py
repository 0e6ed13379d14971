"""Which worker processes run and which have ended, and why, as the JVM's output and the kernel tell it."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from prometheus_client.core import Metric

from serve.logs.causes import WORKER_DIED, worker_exception
from serve.logs.jvm_output import Line
from serve.logs.log import Emit
from serve.metrics.declared import REASONS, SupervisorMetric, family

STARTED = re.compile(r"\[PID\](\d+)")  # the first line that TorchServe's worker prints
HUNG = "Backend worker did not respond in given time"  # in what the JVM logs before it kills a worker
LAST_WORDS_SECONDS = 0.5  # until all that a dead worker has printed has come through the JVM
SAID = {
    "killed": "it was killed by a signal, or ended without a word",
    "exited": "it ended by itself",
    "hung": "it did not answer in time and was replaced",
    "memory": "the kernel killed it when memory ran out",
}


@dataclass
class Worker:
    """One process. words: what it has printed last. gone: when it was first missed, in seconds of the monotonic clock."""

    version: str
    process: psutil.Process
    hung: bool = False
    words: list[Line] = field(default_factory=list)
    gone: float | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs; a stopped one does."""
        try:
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class Workers:
    """All workers of one server.

    emit: takes a line for each worker that ends. oom: counts the processes that the kernel has killed for memory.
    """

    def __init__(self, emit: Emit, oom: OomKills | None = None) -> None:
        self._emit, self._oom = emit, oom or OomKills()
        self._workers: dict[str, Worker] = {}  # by the name of its thread in the JVM
        self._old: list[Worker] = []
        self._restarts = Counter(dict.fromkeys(REASONS, 0))
        self._lock = threading.Lock()
        self._killed_for_memory = self._oom.count()

    def watch(self, line: Line) -> None:
        """Take a line of the JVM's output; called by the thread that reads it."""
        if (version := line.version) is None:
            return
        name = line.thread.removesuffix("-stdout").removesuffix("-stderr")
        with self._lock:
            worker = self._workers.get(name)
            if line.of_worker and (found := STARTED.fullmatch(line.message)):
                if worker is not None:
                    self._old.append(worker)
                try:
                    self._workers[name] = Worker(version, psutil.Process(int(found[1])))
                except psutil.NoSuchProcess:  # it is dead already; its successor will say so
                    self._workers.pop(name, None)
            elif worker is not None and line.of_worker:
                if line.message.startswith(WORKER_DIED) or worker.words:
                    worker.words.append(line)
            elif worker is not None and HUNG in line.message:
                worker.hung = True

    def alive(self) -> dict[int, psutil.Process]:
        """The processes that run, by id."""
        with self._lock:
            return {worker.process.pid: worker.process for worker in self._workers.values() if worker.alive}

    def look(self) -> int:
        """See which have ended since the last look, log and count each of them, and return how many."""
        now = time.monotonic()
        with self._lock:
            known = [*self._old, *self._workers.values()]
            for worker in known:
                if worker.gone is None and not worker.alive:
                    worker.gone = now
            ended = [worker for worker in known if worker.gone is not None and now - worker.gone >= LAST_WORDS_SECONDS]
            self._old = [worker for worker in self._old if worker not in ended]
            self._workers = {name: worker for name, worker in self._workers.items() if worker not in ended}
        for worker in ended:
            reason, more = self._reason(worker)
            self._restarts[reason] += 1
            pid, version = worker.process.pid, worker.version
            message = f"worker {pid} of version {version} is gone: {SAID[reason]}{f' ({more})' if more else ''}"
            self._emit("worker_ended", "error", message=message, pid=pid, version=version, reason=reason, detail=more)
        return len(ended)

    def collect(self) -> Iterable[Metric]:
        """Restarts by reason, and what each worker takes."""
        restarts, memory, cpu = (
            family(metric)
            for metric in (SupervisorMetric.RESTARTS, SupervisorMetric.WORKER_MEMORY, SupervisorMetric.WORKER_CPU)
        )
        for reason, count in self._restarts.items():
            restarts.add_metric([reason], count)
        for pid, process in self.alive().items():
            try:
                resident, times = process.memory_info().rss, process.cpu_times()
            except psutil.Error:
                continue
            memory.add_metric([str(pid)], resident)
            cpu.add_metric([str(pid)], times.user + times.system)
        return [restarts, memory, cpu]

    @property
    def restarts(self) -> int:
        """How many have ended."""
        return sum(self._restarts.values())

    def _reason(self, worker: Worker) -> tuple[str, str | None]:
        """Why a worker ended, and what it said itself."""
        if worker.hung:
            return "hung", None
        if worker.words:
            return "exited", worker_exception(worker.words)
        if (killed := self._oom.count()) > self._killed_for_memory:
            self._killed_for_memory += 1
            return "memory", f"{killed} processes here by now"
        return "killed", None


class OomKills:
    """The kernel's count of processes of this control group that it killed for memory, its limit's or the machine's.

    root: where control groups are mounted. process: this process in /proc. Of the whole machine where no group has a count.
    """

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        groups = [line.split(":", 2) for line in _read(proc / "self" / "cgroup").splitlines() if line.count(":") >= 2]
        files: list[Path] = []
        for _, controllers, path in groups:
            if not controllers:
                files += [root / path.lstrip("/") / "memory.events", root / "memory.events"]
            elif "memory" in controllers.split(","):
                files += [root / "memory" / path.lstrip("/") / "memory.oom_control", root / "memory" / "memory.oom_control"]
        files.append(proc / "vmstat")
        self._file = next((file for file in files if _oom_kill(file) is not None), None)

    def count(self) -> int:
        """How many so far; 0 where nothing counts them."""
        return (_oom_kill(self._file) if self._file else None) or 0


def _oom_kill(file: Path) -> int | None:
    found = re.search(r"^oom_kill (\d+)$", _read(file), re.MULTILINE)
    return int(found[1]) if found else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
