"""The open loop against small servers that stall, hang, refuse and lie: what it plans, counts and measures."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from benchmarks.errors import GeneratorSaturated
from benchmarks.load.generator import Target
from benchmarks.load.mix import Mix
from benchmarks.load.open_loop import OpenSamples, open_loop, refuse_saturated
from benchmarks.load.sender import plan
from detector import ModelIdentity, Verdict

VERDICT = json.dumps(
    Verdict.from_scores(
        logit=1.0,
        raw_prob=0.7310586,
        calibrated_prob=0.62,
        threshold=0.5,
        model=ModelIdentity("detector", "1.0", "resnet18"),
        model_device="cpu",
    ).to_dict()
).encode()
Handle = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


async def answer(writer: asyncio.StreamWriter, body: bytes = VERDICT, status: str = "200 OK", *headers: str) -> None:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])
    writer.write(f"{head}\r\n\r\n".encode() + body)
    await writer.drain()


@contextmanager
def serving(handle: Handle) -> Iterator[Target]:
    """A server of one event loop in a thread, which calls `handle` for each request with its body."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                await handle(await reader.readexactly(length), writer)
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(connection, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "127.0.0.1:1")
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def load(target: Target, rate: float, seconds: float, **options: object) -> OpenSamples:
    # Not strict: on a busy machine the generator is late, and what these tests look at is right all the same.
    return open_loop(target, "rest", rate, seconds, photo_count=4, strict=False, **options)


def test_constant_arrivals_have_equal_gaps_and_poisson_ones_a_mean_of_the_rate():
    assert plan(4, 1, "constant", 0) == [0, 0.25, 0.5, 0.75]
    times = plan(1000, 10, "poisson", 1)
    assert times == plan(1000, 10, "poisson", 1) != plan(1000, 10, "poisson", 2)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    gaps = np.diff(times)
    assert gaps.min() >= 0
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # as of an exponential distribution


def test_latency_counts_from_the_plan_while_the_server_stalls():
    stalled: list[float] = []

    async def stall_once(_: bytes, writer: asyncio.StreamWriter) -> None:
        if not stalled:
            stalled.append(time.monotonic())
            time.sleep(1)  # the whole server
        await answer(writer)

    with serving(stall_once) as target:
        samples = load(target, 50, 2, connections=4, patience=10)
    assert samples.counts == {"200": 100}
    # Fifty requests were planned during the second that the server stood still. With four connections 46 of them could not
    # even be sent, and all of them waited: evenly from a whole second to nothing.
    slow = sorted(samples.milliseconds)
    assert slow[-1] >= 950
    assert sum(ms >= 500 for ms in slow) >= 22
    assert sum(ms >= 250 for ms in slow) >= 34
    assert sum(ms > 100 for ms in samples.sent_ms) >= 30


def test_requests_that_find_no_connection_in_time_are_dropped_and_counted():
    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    with serving(silent) as target:
        samples = load(target, 40, 1, connections=3, patience=0.2, timeout=2)
    assert samples.counts == {"timed out": 3, "dropped": 37}
    report = samples.to_dict()
    assert (report["planned"], report["requests"], report["dropped"], report["connection_errors"]) == (40, 3, 37, 3)
    assert report["failures"] == 40
    assert report["latency_ms"] == {}


def test_refusals_and_broken_connections_are_told_apart_with_their_retry_after():
    seen: Counter[int] = Counter()

    async def fickle(_: bytes, writer: asyncio.StreamWriter) -> None:
        seen[0] += 1
        match seen[0] % 4:
            case 1:
                await answer(writer, b'{"code": 503}', "503 Service Unavailable", "Retry-After: 1", "Connection: close")
            case 2:
                writer.transport.abort()
            case _:
                await answer(writer)

    with serving(fickle) as target:
        samples = load(target, 40, 1)
    assert samples.counts == {"200": 20, "503": 10, "connection reset": 10}
    assert Counter(zip(samples.statuses, samples.retry_after, strict=True))["503", "1"] == 10
    report = samples.to_dict()
    assert (report["connection_errors"], report["refused_with_retry_after"], report["failures"]) == (10, 10, 20)
    assert len(samples.latency()) == len(samples.latency("200")) == 20


def test_a_port_where_nothing_listens_is_said_for_each_request(deaf_port: int):
    samples = load(Target(f"http://127.0.0.1:{deaf_port}", f"127.0.0.1:{deaf_port}"), 20, 0.5)
    assert samples.counts == {"connection refused": 10}
    over_grpc = open_loop(Target("http://127.0.0.1:1", f"127.0.0.1:{deaf_port}"), "grpc", 20, 0.5, photo_count=2, strict=False)
    assert over_grpc.counts == {"UNAVAILABLE": 10}
    assert over_grpc.to_dict()["connection_errors"] == 10


def test_wrong_answers_are_failures_of_their_kind():
    async def same_for_all(_: bytes, writer: asyncio.StreamWriter) -> None:
        await answer(writer)  # 0.62 of every photo, of several at once, of bad ones, and without a heatmap

    known = {f"drawn-{i:03d}.jpg": p for i, p in enumerate([0.62, 0.62, 0.1, 0.1])}
    mix = Mix(photo=1, several=0.3, explain=0.3, bad=0.3)
    with serving(same_for_all) as target:
        samples = load(target, 100, 1, mix=mix, known=known)
    by_kind = Counter((kind, bool(problem)) for kind, problem in zip(samples.kinds, samples.problems, strict=True))
    assert by_kind["several", False] == by_kind["explain", False] == by_kind["bad", False] == 0
    # Fake and Real take turns where both are known, and only the Fake ones are right here.
    assert abs(by_kind["photo", False] - by_kind["photo", True]) <= 1
    assert samples.verdicts == {"Fake": by_kind["photo", False]}
    assert any("calibrated is not that of drawn-002.jpg" in problem for problem in samples.problems)


def test_a_rate_beyond_the_generator_is_an_error_and_not_a_number():
    async def quick(_: bytes, writer: asyncio.StreamWriter) -> None:
        await answer(writer)

    with serving(quick) as target, pytest.raises(GeneratorSaturated, match="can't keep to 300000 requests per second"):
        open_loop(target, "rest", 300_000, 0.5, photo_count=4)


@pytest.mark.parametrize(
    ("late", "latency", "cpu", "reason"),
    [
        (1.0, 5.0, 0.3, None),
        (9.0, 10.0, 0.3, None),  # a hundredth of a second is the machine's own noise
        (80.0, 100.0, 0.3, "late"),  # most of the tail is the generator's
        (40.0, 1000.0, 0.3, None),
        (60.0, 1000.0, 0.3, "late"),  # the rate was not kept at all
        (1.0, 5.0, 0.95, "CPU"),
    ],
)
def test_when_the_generator_is_the_limit(late: float, latency: float, cpu: float, reason: str | None):
    n = 200
    samples = OpenSamples(
        rate=100,
        planned=[i / 100 for i in range(n)],
        late_ms=[late] * n,
        sent_ms=[late] * n,
        milliseconds=[latency] * n,
        statuses=["200"] * n,
        kinds=["photo"] * n,
        retry_after=[""] * n,
        problems=[""] * n,
        verdicts={},
        cpu_share=cpu,
        cpu_seconds=1,
        machine_cpu_seconds=2,
    )
    if reason is None:
        refuse_saturated(samples)
    else:
        with pytest.raises(GeneratorSaturated, match=reason):
            refuse_saturated(samples)
