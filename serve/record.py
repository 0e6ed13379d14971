"""The record of a running server in its state folder, by which `stop`, `status` and `predict` find it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

from detector.errors import FileError
from serve.errors import AlreadyRunning
from serve.settings import LOOPBACK, MODEL, PORTS, Settings

FILE = "server.json"


@dataclass(frozen=True)
class Record:
    """Where a server listens, and its supervisor's process id and start time, which tells a reused id apart."""

    pid: int
    started: float
    archive: str
    device: str
    host: str
    rest_url: str
    grpc_target: str
    supervisor_url: str
    management_url: str
    key_file: str | None
    ports: dict[str, int]
    drain_limit: float
    logs: str
    versions: list[str]
    workers: int
    threads: int

    @property
    def keys(self) -> Path | None:
        """TorchServe's key file; None where it requires no token."""
        return Path(self.key_file) if self.key_file else None

    @property
    def alive(self) -> bool:
        """Whether that process still runs."""
        try:
            process = psutil.Process(self.pid)
            return abs(begun(process) - self.started) < 2 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def save(self, state: Path) -> None:
        """Write the record whole or not at all."""
        partial = state / (FILE + ".partial")
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        partial.replace(state / FILE)


def begun(process: psutil.Process) -> float:
    """When a process started, in seconds since the machine did.

    Setting the clock does not change it, and it is exact to 10 ms; psutil's seconds since the epoch include the machine's
    start in whole seconds.
    """
    return process.create_time() - psutil.boot_time()


def management_url(settings: Settings) -> str:
    """Where TorchServe's management listens."""
    return f"http://{LOOPBACK}:{settings.management_port}"


def record_of(settings: Settings, versions: Iterable[str], logs: str, keys: Path | None) -> Record:
    """The record of this process as the supervisor of `settings`. keys: TorchServe's key file, where it requires tokens.

    logs: where they are.
    """
    host = settings.connect_host()
    return Record(
        pid=os.getpid(),
        started=begun(psutil.Process()),
        archive=settings.archive,
        device=settings.device,
        host=settings.host,
        rest_url=f"http://{host}:{settings.rest_port}/predictions/{MODEL}",
        grpc_target=f"{host}:{settings.grpc_port}",
        supervisor_url=f"http://{host}:{settings.supervisor_port}",
        management_url=management_url(settings),
        key_file=str(keys) if keys else None,
        ports={field: getattr(settings, field) for field in PORTS},
        drain_limit=settings.drain_limit + settings.drain_grace,
        logs=logs,
        versions=list(versions),
        workers=settings.worker_count,
        threads=settings.worker_threads,
    )


def announcement(record: Record) -> str:
    """That a server is ready, how long it took, and where it listens, for people."""
    default, *others = record.versions
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - record.started
    return (
        f"ready after {seconds:.1f} s: {record.archive} on {record.device}, "
        f"{record.workers} workers with {record.threads} threads each\n"
        f"  versions    {', '.join([f'{default} (default)', *others])}\n"
        f"  REST        {record.rest_url}\n"
        f"  gRPC        {record.grpc_target}\n"
        f"  health      {record.supervisor_url}/readyz, /livez, /metrics\n"
        f"  management  {record.management_url}\n"
        f"  logs        {record.logs}"
    )


def find_record(state: Path) -> Record | None:
    """The record of the server that runs from `state`, None when none does."""
    try:
        record = Record(**json.loads((state / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return record if record.alive else None


def take_lock(state: Path) -> IO[str]:
    """Hold the state folder as long as the returned file is open.

    Raises `AlreadyRunning` when another server does, `FileError` when it can't be written.
    """
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("a", encoding="utf-8")
    except OSError as error:
        raise FileError(f"{state}: can't be written ({error.strerror}); give another folder with --state") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        running = find_record(state)
        who = f" (process {running.pid})" if running else ""
        raise AlreadyRunning(
            f"a server{who} already runs from {state}; end it with `unmask serve stop`, or give --state another folder"
        ) from None
    return lock
