"""The end of a server under load: nobody who was accepted goes without an answer, and who comes later is told so at once."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from serve.jvm.draining import DRAINING

POLL_SECONDS = 0.05
SETTLE_SECONDS = 0.5  # how long nothing may be in hand before the drain is over: answers are still being written out
IDLE_SECONDS = 2.0  # the same while clients hold connections open, on which a request may be under way
LAST_WORK_SECONDS = 10.0  # for what is still in hand when the drain's limit is over


@dataclass(frozen=True)
class Drain:
    """How to drain.

    jvm: TorchServe. work: its working directory. ports: those for predictions. grace: seconds in which new connections are
    still taken. limit: seconds more for all the rest. in_hand: whether any request waits or is being answered. hurry: whether
    to end at once.
    """

    jvm: subprocess.Popen[bytes]
    work: Path
    ports: Collection[int]
    grace: float
    limit: float
    in_hand: Callable[[], bool]
    hurry: Callable[[], bool]

    def run(self) -> None:
        """Return when the JVM may be killed.

        Each answer closes its connection from the start, so that who keeps one open goes elsewhere. After the grace period
        the JVM closes its listeners, and the kernel refuses new connections. What is on the open ones is answered.
        """
        (self.work / DRAINING).touch()
        start = busy = time.monotonic()
        listening, connections = True, self._connections()
        end = self.grace + self.limit
        while not self.hurry() and self.jvm.poll() is None and (now := time.monotonic()) - start < end + LAST_WORK_SECONDS:
            if listening and now - start >= self.grace:
                self.jvm.send_signal(signal.SIGTERM)
                listening = False
            before, connections = connections, self._connections()
            working = self.in_hand()
            if working or listening or connections < before:
                busy = now
            if now - busy >= (IDLE_SECONDS if connections else SETTLE_SECONDS) or (now - start >= end and not working):
                return
            time.sleep(POLL_SECONDS)

    def _connections(self) -> int:
        """Connections that clients hold open."""
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(self.jvm.pid).net_connections("tcp")
            return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port in self.ports for each in found)
        return 0
