"""More than it can do: a bounded queue, quick refusals that say when to come back, and all well a moment later."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest

from serve.client.grpc_stubs import load
from serve.processes.priorities import NICENESS
from serve.settings import MODEL
from tests.serve.running import RunningServer
from tests.waiting import awaited

QUEUE, BATCH = 10, 2


@pytest.fixture(scope="module")
def small_server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of one worker with a short queue."""
    flags = ("--workers", "1", "--threads", "1", "--queue-size", str(QUEUE), "--batch-size", str(BATCH))
    running = RunningServer(artifacts, tmp_path_factory.mktemp("small"), *flags)
    try:
        yield running.await_ready()
    finally:
        running.stop()


async def open_loop(url: str, photo: bytes, rate: float, seconds: float) -> list[tuple[float, httpx.Response]]:
    """Send `rate` requests a second, answered or not; each one's seconds and answer."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=QUEUE)

    async def one(client: httpx.AsyncClient) -> tuple[float, httpx.Response]:
        start = time.perf_counter()
        response = await client.post(url, content=photo)
        return time.perf_counter() - start, response

    async with httpx.AsyncClient(timeout=60, trust_env=False, limits=limits) as client:
        begun, tasks = time.perf_counter(), []
        while (now := time.perf_counter() - begun) < seconds:
            tasks += [asyncio.create_task(one(client)) for _ in range(int(now * rate) - len(tasks))]
            await asyncio.sleep(0.005)
        return list(await asyncio.gather(*tasks))


def test_ten_times_too_much_is_refused_at_once_and_what_is_admitted_waits_a_bounded_time(small_server, slow_photo):
    for _ in range(2):
        small_server.predict(slow_photo)
    alone = []
    for _ in range(5):
        start = time.perf_counter()
        small_server.predict(slow_photo)
        alone.append(time.perf_counter() - start)
    service = statistics.median(alone)
    # In the queue, in the worker, and as much again because the clients take their share of the same CPUs.
    bound = 4 * (QUEUE + 2 * BATCH) * service
    answers = asyncio.run(open_loop(small_server.record.rest_url, slow_photo, 10 / service, max(3.0, 20 * service)))
    recovered = time.perf_counter()
    assert small_server.predict(slow_photo)["ok"]
    assert time.perf_counter() - recovered < bound
    assert small_server.probe("readyz")[0] == 200

    admitted = sorted(seconds for seconds, response in answers if response.status_code == 200)
    refused = [(seconds, response) for seconds, response in answers if response.status_code == 503]
    assert len(admitted) + len(refused) == len(answers)
    assert len(admitted) >= QUEUE
    assert len(refused) > len(admitted)
    for _, response in refused:
        assert response.headers["Retry-After"] == "1"
        assert response.headers["Connection"] == "keep-alive"
        assert "[overloaded]" in response.json()["message"]
    assert all("Retry-After" not in response.headers for _, response in answers if response.status_code == 200)
    assert statistics.median(seconds for seconds, _ in refused) < statistics.median(admitted) / 2
    assert admitted[int(len(admitted) * 0.99)] < bound


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of single threads are Linux's")
def test_what_takes_requests_in_yields_to_the_workers(small_server):
    """And no worker does: a process inherits the niceness of the thread that starts it."""
    lowered = min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)

    def names() -> set[str]:
        tasks = Path(f"/proc/{small_server.jvm.pid}/task").iterdir()
        return {(task / "comm").read_text() for task in tasks if os.getpriority(os.PRIO_PROCESS, int(task.name)) == lowered}

    awaited(names, lambda found: any(name.startswith(("epollEventLoop", "nioEventLoop")) for name in found))
    assert not any(name.startswith("W-") for name in names())
    assert [worker.nice() for worker in small_server.workers()] == [os.getpriority(os.PRIO_PROCESS, 0)]


def test_over_grpc_a_full_queue_is_resource_exhausted(small_server, slow_photo):
    messages, services = load()
    request = messages.PredictionsRequest(model_name=MODEL, input={"data": slow_photo})

    def ask(_: int) -> tuple[grpc.StatusCode, bool, str | None]:
        call = stub.Predictions.future(request, timeout=60)
        after = dict(call.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
        return call.code(), "[overloaded]" in (call.details() or ""), after

    with grpc.insecure_channel(small_server.record.grpc_target) as channel, ThreadPoolExecutor(6 * QUEUE) as pool:
        stub = services.InferenceAPIsServiceStub(channel)
        codes = set(pool.map(ask, range(6 * QUEUE)))
        verdicts = list(pool.map(lambda _: small_server.predict(slow_photo, grpc=True), range(6 * QUEUE)))
    assert codes == {(grpc.StatusCode.OK, False, None), (grpc.StatusCode.RESOURCE_EXHAUSTED, True, "1000")}
    assert {v["error"]["code"] for v in verdicts if not v["ok"]} == {"overloaded"}
