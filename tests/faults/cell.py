"""One cell of the fault matrix: a server under light traffic, the Prometheus that watches it, and the runbook at hand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from serve import control
from serve.record import find_record
from tests.faults.load import Clients
from tests.faults.runbook import Desk, sections
from tests.prometheus import Prometheus, await_
from tests.serve.running import RunningServer


@dataclass
class Row:
    """What the matrix says of one fault; seconds, None where that did not happen or is not asked for."""

    fault: str
    metric: str = "-"
    moved: float | None = None
    alert: str = "-"
    fired: float | None = None
    action: str = "-"
    ended: float | None = None
    passed: bool = False
    notes: list[str] = field(default_factory=list)


class Cell:
    """A server, a Prometheus that scrapes it, and the row of the matrix that they fill.

    factor: how many times shorter the rules' windows are than in production.
    """

    def __init__(
        self, row: Row, folder: Path, artifacts: Sequence[Path], photos: Sequence[bytes], flags: Sequence[str], factor: float
    ) -> None:
        self.row, self.photos, self._folder = row, photos, folder
        settings = {"UNMASK_ARTIFACTS": ":".join(map(str, artifacts)), "UNMASK_WARM_UP_CONNECTIONS": "1"}
        settings |= dict.fromkeys(
            (f"UNMASK_{name}_PORT" for name in ("REST", "GRPC", "SUPERVISOR", "MANAGEMENT", "METRICS", "GRPC_MANAGEMENT")), "0"
        )
        settings |= {f"UNMASK_{k[2:].upper().replace('-', '_')}": v for k, v in zip(flags[::2], flags[1::2], strict=True)}
        self.state = folder / "state"
        self.desk = Desk(folder / "desk", self.state, settings)
        for i, artifact in enumerate(artifacts):
            (self.desk.folder / f"artifacts{i + 1 if i else ''}").symlink_to(artifact)
        more = [word for artifact in artifacts[1:] for word in ("--artifacts", str(artifact))]
        self.server = RunningServer(artifacts[0], self.state, *more, *flags)
        self.prometheus: Prometheus | None = None
        try:
            self.prometheus = Prometheus(folder / "prometheus", factor)
            self.prometheus.watch(self.server.record.supervisor_url)
            self.desk.prometheus_url = self.prometheus.url
            self.server.await_ready()
            self.prometheus.awaited("unmask_ready == 1", "the first scrape of a ready server")
        except BaseException:
            self.close()
            raise

    @property
    def watched(self) -> Prometheus:
        """The Prometheus."""
        assert self.prometheus is not None
        return self.prometheus

    def traffic(self, *, rest: int = 1, grpc: int = 1, pause: float = 0.05, **options: str) -> Clients:
        """Clients of this server."""
        record = self.server.record
        return Clients(record.rest_url, record.grpc_target, self.photos, rest=rest, grpc=grpc, pause=pause, **options)

    def quiet(self, alert: str) -> None:
        """The alert does not fire before the fault."""
        self.watched.scrapes()
        assert alert not in self.watched.firing(), f"{alert} fires before anything has happened"

    def moves(self, query: str, provoke: Callable[[], object]) -> None:
        """Provoke the fault, and wait until the query's value is another than before."""
        self.row.metric = query
        before = self.watched.query(query)
        provoke()
        self.row.moved = await_(
            lambda: self.watched.query(query) != before, f"{query} moves from {before}", hint=lambda: self.watched.query(query)
        )

    def fires(self, alert: str, *, again: Callable[[], object] | None = None) -> None:
        """Wait until the alert fires, and provoke the fault `again` while it does not."""
        self.row.alert = alert

        def fired() -> bool:
            if alert in self.watched.firing():
                return True
            if again is not None:
                again()
            return False

        self.row.fired = await_(fired, f"{alert} fires", hint=self.watched.firing)

    def acts(self, alert: str) -> str:
        """Run what the runbook says to the alert, as printed; what it printed."""
        start = time.monotonic()
        printed = self.desk.run(sections()[alert])
        (self._folder / f"{alert}.txt").write_text(printed)
        self.row.action = f"{time.monotonic() - start:.1f}"
        return printed

    def ends(self, alert: str) -> None:
        """Follow a server that the action has started, and wait until the alert is over."""
        if record := find_record(self.state):
            self.watched.watch(record.supervisor_url)
        self.row.ended = await_(lambda: alert not in self.watched.firing(), f"{alert} ends", hint=self.watched.firing)

    def close(self) -> None:
        """End the server, one that an action has started, and Prometheus."""
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            family = self.server.family()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self.server.stop()
        control.stop(self.state)
        if self.prometheus is not None:
            self.prometheus.close()


@contextlib.contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """A process that hangs while the block runs."""
    process.suspend()
    try:
        yield
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
