"""One cell of the fault matrix: a server, the Prometheus that watches it, and the runbook at hand."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from serve import control
from serve.record import find_record
from serve.settings import PORTS
from tests.faults.load import Clients
from tests.faults.runbook import Desk, sections
from tests.prometheus import Prometheus, await_
from tests.serve.running import RunningServer

OVER_SECONDS = 2.0  # without an alert, until it counts as ended: several evaluations of its rule
# Below those that the kernel gives to outgoing connections: a server that a command starts again finds its own ones free.
FIRST_PORT, LAST_PORT = 20_000, 32_000


T = TypeVar("T")


@dataclass
class Row:
    """What the matrix says of one fault; seconds, None where that did not happen or is not asked for."""

    fault: str
    metric: str = "-"
    moved: float | None = None
    alert: str = "-"
    fired: float | None = None
    action: float | None = None
    ended: float | None = None
    notes: list[str] = field(default_factory=list)


class Cell:
    """A server, a Prometheus that scrapes it, and the row of the matrix that they fill.

    artifacts: one folder for each version. flags: of the server, each with its value. factor: how many times shorter the
    rules' windows are than in production.
    """

    def __init__(
        self, row: Row, folder: Path, artifacts: Sequence[Path], photos: Sequence[bytes], flags: Sequence[str], factor: float
    ) -> None:
        self.row, self.photos, self.state = row, photos, folder / "state"
        settings = {"warm-up-connections": "1"} | {
            name.replace("_", "-"): str(n) for name, n in free_ports(tuple(PORTS)).items()
        }
        settings |= {flag.removeprefix("--"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
        variables = {f"UNMASK_{name.upper().replace('-', '_')}": value for name, value in settings.items()}
        self.desk = Desk(folder / "desk", self.state, variables)
        for i, artifact in enumerate(artifacts):
            (self.desk.folder / f"artifacts{i + 1 if i else ''}").symlink_to(artifact)
        (self.desk.folder / "face.jpg").write_bytes(photos[0])
        self.prometheus = Prometheus(folder / "prometheus", factor)
        self._server: RunningServer | None = None
        self._over = contextlib.ExitStack()
        try:
            self.desk.prometheus_url = self.prometheus.url
            self.prometheus.watch(f"http://127.0.0.1:{settings['supervisor-port']}")
            more = [word for artifact in artifacts[1:] for word in ("--artifacts", str(artifact))]
            more += [word for name, value in settings.items() for word in (f"--{name}", value)]
            self._server = RunningServer(artifacts[0], self.state, *more)
            (self.desk.folder / "server.log").symlink_to(self.state / "output.log")
            self.server.await_ready()
            self.prometheus.awaited("unmask_ready == 1", "the first scrape of a ready server")
        except BaseException:
            self.close()
            raise

    @property
    def server(self) -> RunningServer:
        """The server."""
        assert self._server is not None
        return self._server

    def traffic(self, *, rest: int = 1, grpc: int = 1, pause: float = 0.05, version: str = "") -> Clients:
        """Clients of this server, or of the one that takes its place."""
        record = self.server.record
        return Clients(record.rest_url, record.grpc_target, self.photos, rest=rest, grpc=grpc, pause=pause, version=version)

    def begin(self, clients: contextlib.AbstractContextManager[T]) -> T:
        """Have clients ask until the cell is over."""
        return self._over.enter_context(clients)

    def quiet(self, *alerts: str) -> None:
        """Wait until none of the alerts fires: before the fault, that is as soon as Prometheus has seen the server."""
        self.prometheus.scrapes(4)
        self.prometheus.awaited("up == 1", "a scrape in time")
        await_(lambda: not set(alerts) & self.prometheus.firing(), f"{alerts} do not fire", hint=self.prometheus.firing)

    def moves(self, query: str, provoke: Callable[[], object]) -> None:
        """Provoke the fault, and wait until the query's value is another than before."""
        self.row.metric = query
        before = self.prometheus.query(query)
        provoke()
        self.row.moved = await_(
            lambda: self.prometheus.query(query) not in (before, None),
            f"{query} moves from {before}",
            hint=lambda: self.prometheus.query(query),
        )

    def fires(self, *alerts: str, again: Callable[[], object] | None = None) -> None:
        """Wait until the alerts fire, and provoke the fault `again` while they do not."""
        self.row.alert = ", ".join(alerts)
        seen: set[str] = set()

        def fired() -> bool:
            seen.update(self.prometheus.firing())
            if again is not None and not seen.issuperset(alerts):
                again()
            return seen.issuperset(alerts)

        self.row.fired = await_(fired, f"{' and '.join(alerts)} fire", hint=lambda: seen)

    def acts(self, *alerts: str) -> str:
        """Run what the runbook says to the alerts, as printed; what it printed."""
        start = time.monotonic()
        printed = "\n".join(self.desk.run(sections()[alert]) for alert in alerts)
        with (self.desk.folder / "printed").open("a") as file:
            file.write(printed)
        self.row.action = time.monotonic() - start
        return printed

    def ends(self, *alerts: str) -> None:
        """Wait until the alerts are over, and stay so for a while: a gap in what a rule reads ends none."""
        start = last = time.monotonic()

        def over() -> bool:
            nonlocal last
            if set(alerts) & self.prometheus.firing():
                last = time.monotonic()
            return time.monotonic() - last > OVER_SECONDS

        await_(over, f"{alerts} end", hint=self.prometheus.firing)
        self.row.ended = last - start

    def close(self) -> None:
        """End the server, one that an action has started, and Prometheus."""
        try:
            self._over.close()
            if self._server is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    for process in self._server.family():
                        process.resume()
                self._server.stop()
            if find_record(self.state):
                control.stop(self.state)
        finally:
            self.prometheus.close()


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """A port for each name that nobody listens on now."""
    found: dict[str, int] = {}
    numbers = list(range(FIRST_PORT, LAST_PORT))
    random.shuffle(numbers)
    for number in numbers:
        if len(found) == len(names):
            break
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", number)):
            found[names[len(found)]] = number
    return found
