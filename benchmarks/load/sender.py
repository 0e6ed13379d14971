"""The open loop's own process: sends each request when the plan says so, whatever became of the ones before.

`benchmarks.load.open_loop` starts it with a JSON file of its settings and reads the samples that it writes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.load.checker import AnswerChecker
from benchmarks.load.mix import Message, Mix, in_turn, messages
from benchmarks.load.rest import TIMED_OUT, Answer, RestSender
from benchmarks.machine import busy_seconds
from benchmarks.photos import load_photos

if TYPE_CHECKING:
    from benchmarks.load.grpc_calls import GrpcSender

DROPPED = "dropped"
HEAD_START = 0.1  # seconds from the end of preparations to the plan's beginning


def plan(rate: float, seconds: float, arrivals: str, seed: int) -> list[float]:
    """When requests are to be sent, in seconds from the beginning: `rate` per second, `constant` or `poisson`."""
    if arrivals == "constant":
        return [float(t) for t in np.arange(max(1, round(rate * seconds))) / rate]
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, size=int(rate * seconds + 10 * (rate * seconds) ** 0.5 + 10))
    times = np.cumsum(gaps)
    return [float(t) for t in times[times < seconds]] or [0.0]


class Slots:
    """So many requests in flight at the most; one that finds no slot waits in a queue, for a while."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[asyncio.Future[bool]] = deque()

    async def take(self, patience: float) -> bool:
        """Whether there was a slot within `patience` seconds."""
        if self._free:
            self._free -= 1
            return True
        loop = asyncio.get_running_loop()
        slot: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(slot)
        limit = loop.call_later(patience, _give_up, slot)
        try:
            return await slot
        finally:
            limit.cancel()

    def give(self) -> None:
        """A request has its answer."""
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(True)
                return
        self._free += 1


def _give_up(slot: asyncio.Future[bool]) -> None:
    if not slot.done():
        slot.set_result(False)


@dataclass
class Fate:
    """What became of a planned request, times in seconds from the plan: when the loop came to it, when it was sent, when its
    answer was there."""

    late: float = 0.0
    sent: float = 0.0
    done: float = 0.0
    answer: Answer = field(default_factory=lambda: Answer(DROPPED))


class OpenLoop:
    """Sends `requests` at the `planned` times; `patience` is how long one may wait for a slot before it is dropped."""

    def __init__(
        self, sender: RestSender | GrpcSender, requests: Sequence[bytes], planned: Sequence[float], slots: int, patience: float
    ) -> None:
        self._sender, self._requests, self._planned, self._patience = sender, requests, planned, patience
        self._slots = Slots(slots)
        self._tasks: set[asyncio.Task[None]] = set()
        self._planned_all = asyncio.Event()
        self._start = self.began = 0.0
        self.cpu_share = 0.0
        self.fates = [Fate() for _ in planned]

    async def run(self, finish: float) -> None:
        """Send everything; requests without an answer `finish` seconds after the last one count as timed out."""
        await self._sender.open()
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection takes as long as some answers
        loop = asyncio.get_running_loop()
        self._start, self.began = time.perf_counter() + HEAD_START, time.time() + HEAD_START
        cpu, clock = time.process_time(), time.perf_counter()
        threading.Thread(target=self._pace, args=(loop,), daemon=True).start()
        await self._planned_all.wait()
        self.cpu_share = (time.process_time() - cpu) / (time.perf_counter() - clock)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=finish)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await self._sender.close()

    def _pace(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell the event loop what is due. A thread sleeps more exactly than its timers, which round to a millisecond."""
        n, first = len(self._planned), 0
        while first < n:
            due = self._start + self._planned[first] - time.perf_counter()
            if due > 0:
                time.sleep(due)
            now, last = time.perf_counter() - self._start, first + 1
            while last < n and self._planned[last] <= now:
                last += 1
            loop.call_soon_threadsafe(self._begin, first, last)
            first = last
        loop.call_soon_threadsafe(self._planned_all.set)

    def _begin(self, first: int, last: int) -> None:
        for number in range(first, last):
            late = time.perf_counter() - self._start - self._planned[number]
            self.fates[number].late = late
            if late <= self._patience:
                task = asyncio.ensure_future(self._send(number))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _send(self, number: int) -> None:
        fate, planned = self.fates[number], self._start + self._planned[number]
        if not await self._slots.take(self._patience - fate.late):
            return
        fate.sent, fate.answer = time.perf_counter() - planned, Answer(TIMED_OUT)
        try:
            fate.answer = await self._sender.send(self._requests[number])
        finally:
            fate.done = time.perf_counter() - planned
            self._slots.give()


def _problem(message: Message, answer: Answer, sender: RestSender | GrpcSender, checker: AnswerChecker) -> str:
    """The problem with an answer, an empty text where there is none."""
    if answer.status == DROPPED:
        return "dropped: it could not be sent in time"
    if answer.status == "OK":
        return checker.problem(message.expected, sender.body(answer), None) or ""
    if answer.status.isdigit():
        return checker.problem(message.expected, answer.body, int(answer.status)) or ""
    details = answer.body.decode("utf-8", "replace").partition("\n")[0][:200]
    return f"gRPC {answer.status}: {details}" if details else answer.status


def _sender(values: dict[str, Any]) -> RestSender | GrpcSender:
    if values["protocol"] == "rest":
        return RestSender(values["rest"], values["timeout"])
    from benchmarks.load.grpc_calls import CHANNELS, GrpcSender

    return GrpcSender(values["grpc"], values["timeout"], min(values["connections"], CHANNELS))


async def _load(values: dict[str, Any]) -> dict[str, Any]:
    mix = Mix(**values["mix"])
    made = messages(mix, load_photos(values["photos"] and Path(values["photos"]), values["photo_count"]), seed=values["seed"])
    planned = plan(values["rate"], values["seconds"], values["arrivals"], values["seed"])
    slots, sender = values["connections"], _sender(values)
    chosen = in_turn(made, mix, len(planned), known=values["known"], threshold=values["threshold"], seed=values["seed"])
    prepared = {id(message): sender.prepare(message) for row in made.values() for message in row}
    loop = OpenLoop(sender, [prepared[id(message)] for message in chosen], planned, slots, values["patience"])
    cpu, machine_cpu = time.process_time(), busy_seconds()
    await loop.run(values["finish"])
    cpu, machine_cpu = time.process_time() - cpu, busy_seconds() - machine_cpu
    checker, fates = AnswerChecker(values["known"]), loop.fates
    return {
        "planned": [loop.began + t for t in planned],
        "late_ms": [1e3 * fate.late for fate in fates],
        "sent_ms": [1e3 * fate.sent for fate in fates],
        "milliseconds": [1e3 * fate.done for fate in fates],
        "statuses": [fate.answer.status for fate in fates],
        "kinds": [message.kind for message in chosen],
        "retry_after": [fate.answer.retry_after for fate in fates],
        "problems": [_problem(m, fate.answer, sender, checker) for m, fate in zip(chosen, fates, strict=True)],
        "verdicts": dict(checker.verdicts),
        "cpu_share": loop.cpu_share,
        "cpu_seconds": cpu,
        "machine_cpu_seconds": machine_cpu,
    }


def main(argv: list[str] | None = None) -> int:
    """Load a server as the settings say and write the samples, both as JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.load.sender", description=__doc__, allow_abbrev=False)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True, help="where to write")
    arguments = parser.parse_args(argv)
    values = json.loads(arguments.settings.read_text(encoding="utf-8"))
    sys.setswitchinterval(5e-4)  # the pacing thread waits no longer than this for the interpreter
    arguments.samples.write_text(json.dumps(asyncio.run(_load(values))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
