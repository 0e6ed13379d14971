"""What the supervisor shows of a server, and what it does when TorchServe or a worker fails."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.serve.running import RunningServer, serve, unmask
from tests.waiting import PATIENCE, awaited


def test_metrics_come_as_text_or_openmetrics_and_packed_as_they_are_asked_for(server):
    url = f"{server.record.supervisor_url}/metrics"
    with httpx.Client(trust_env=False) as client:
        plain = client.get(url, headers={"Accept": "*/*", "Accept-Encoding": "identity"})
        assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "content-encoding" not in plain.headers
        accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3"
        with client.stream("GET", url, headers={"Accept": accept, "Accept-Encoding": "gzip"}) as packed:
            assert packed.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
            assert packed.headers["content-encoding"] == "gzip"
            text = gzip.decompress(b"".join(packed.iter_raw())).decode()
        head = client.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 1000
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert not any(name.endswith("_created") for name in families)
    areas = {s.labels["area"]: s.value for s in families["unmask_jvm_memory_bytes"].samples}
    assert set(areas) == {"heap_used", "heap_committed", "heap_max", "metaspace_used", "resident"}
    assert 0 < areas["heap_used"] <= areas["heap_committed"] <= areas["heap_max"]
    assert areas["metaspace_used"] < areas["resident"] == pytest.approx(server.jvm.memory_info().rss, rel=0.5)
    (threads,) = families["unmask_jvm_threads"].samples
    assert 5 < threads.value <= server.jvm.num_threads()
    workers = {str(worker.pid) for worker in server.workers()}
    for name in ("unmask_worker_resident_memory_bytes", "unmask_worker_cpu_seconds"):
        assert {s.labels["pid"] for s in families[name].samples} == workers
        assert all(s.value > 0 for s in families[name].samples)
    assert families["process_resident_memory_bytes"].samples[0].value > 2**20


def test_labels_are_taken_from_the_command_a_file_and_a_request(server, tmp_path):
    def counted(label: str) -> float:
        return server.metric(f'unmask_feedback_total{{bin="0.9-1.0",label="{label}",version="1.0"}}')

    before = counted("fake"), counted("real")
    one = ("--version", "1.0", "--score", "0.95", "--label", "fake")
    done = unmask("feedback", *one, "--state", server.state)
    assert (done.returncode, done.stdout) == (0, "1 label taken\n"), done.stderr
    file = tmp_path / "labels.csv"
    file.write_text("label,score,version\nFake,0.91,1.0\nreal, 1.0 ,1.0\n")
    assert unmask("feedback", "--file", file, "--state", server.state).stdout == "2 labels taken\n"
    assert (counted("fake"), counted("real")) == (before[0] + 2, before[1] + 1)

    file.write_text("label,score,version\nfake,0.91,1.0\nreal,0.5,7.0\n")
    refused = unmask("feedback", "--file", file, "--state", server.state)
    assert refused.returncode == 2
    assert "label 2: version '7.0' is not served here; these are: 1.0" in refused.stderr
    file.write_text("label,score,version\nfake,high,1.0\n")
    assert "labels.csv, line 2: score 'high'" in unmask("feedback", "--file", file, "--state", server.state).stderr
    file.write_text("label,score\n")
    assert "no column 'version'" in unmask("feedback", "--file", file, "--state", server.state).stderr
    assert unmask("feedback", "--score", "0.5", "--state", server.state).returncode == 2
    assert unmask("feedback", *one, "--state", tmp_path).returncode == 1
    assert (counted("fake"), counted("real")) == (before[0] + 2, before[1] + 1)

    url = f"{server.record.supervisor_url}/feedback"
    assert httpx.get(url, trust_env=False).status_code == 405
    assert httpx.post(url, content=b"no", trust_env=False).status_code == 422
    assert httpx.post(url, content=b"x" * (2**21 + 1), trust_env=False).status_code == 413
    assert httpx.post(url, content=iter([b"{}"]), trust_env=False).status_code == 411
    assert httpx.post(url.replace("feedback", "metrics"), content=b"{}", trust_env=False).status_code == 404


def test_a_probe_that_goes_away_leaves_nothing_in_the_log(server):
    address = (server.record.host, server.record.ports["supervisor_port"])
    half = b"POST /feedback HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"
    for request in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", half):
        for _ in range(3):
            with socket.create_connection(address) as connection:
                connection.sendall(request)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    assert server.probe("livez")[0] == 200
    assert "Traceback" not in server.output
    assert server.events("supervisor_request_failed") == []


@pytest.fixture(scope="module")
def failing(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of one worker, for tests that harm it."""
    flags = ("--workers", "1", "--liveness-timeout", "5", "--response-timeout", "3")
    running = RunningServer(artifacts, tmp_path_factory.mktemp("failing"), *flags)
    try:
        yield running.await_ready()
    finally:
        running.stop()


REAL, FAKE = 'unmask_photos_total{outcome="real"}', 'unmask_photos_total{outcome="fake"}'


def test_workers_that_are_killed_again_and_again_lose_no_count_and_pile_up_no_files(failing, photos):
    counted = 0
    for number in range(1, 3):
        for photo in photos[:3]:
            assert failing.predict(photo)["ok"]
        counted += 3
        awaited(lambda: failing.metric(REAL) + failing.metric(FAKE) == counted)  # noqa: B023
        for file in (failing.state / "metrics").glob("counter_*.db"):
            (file.parent / f"counter_{number}.db").write_bytes(b"")  # as if it had been killed while it made one
        worker = failing.workers()[0]
        worker.kill()
        awaited(lambda: len(failing.events("worker_ended")) == number)  # noqa: B023
        told = failing.events("worker_ended")[-1]
        assert (told["pid"], told["version"], told["reason"]) == (worker.pid, "1.0", "killed")
        assert failing.metric(REAL) + failing.metric(FAKE) == counted
        awaited(lambda: failing.probe("readyz")[0] == 200)
    assert failing.metric('unmask_worker_restarts_total{reason="killed"}') == 2
    kept = {file.name for file in (failing.state / "work" / "metrics").iterdir()}
    assert {"counter_0.db", "histogram_0.db"} < kept
    assert len(kept) <= 2 + 3
    assert failing.probe("metrics")[0] == 200


def test_a_worker_that_hangs_is_told_as_such(failing, photos):
    worker = failing.workers()[0]
    worker.send_signal(signal.SIGSTOP)
    assert not failing.predict(photos[0])["ok"]
    awaited(lambda: [event["reason"] for event in failing.events("worker_ended")][2:] == ["hung"])
    assert failing.metric('unmask_worker_restarts_total{reason="hung"}') == 1
    awaited(lambda: failing.probe("readyz")[0] == 200)


def test_status_says_where_the_log_is_and_how_long_the_queue(failing):
    status = json.loads(serve("status", "--state", failing.state).stdout)
    assert status["logs"] == "standard output"
    assert status["queue"] == {"pending": 0, "limit": 100}


def test_livez_fails_when_the_jvm_hangs_and_the_server_ends_when_nobody_acts(failing):
    failing.jvm.send_signal(signal.SIGSTOP)
    awaited(lambda: failing.probe("livez")[0] == 503)
    assert failing.process.poll() is None
    failing.jvm.send_signal(signal.SIGCONT)
    awaited(lambda: failing.probe("livez")[0] == 200)
    awaited(lambda: failing.probe("readyz")[0] == 200)

    failing.jvm.send_signal(signal.SIGSTOP)
    assert failing.process.wait(PATIENCE) == 1
    assert failing.events("torchserve_hung")
    assert [event["code"] for event in failing.events("failed")] == ["server_died"]
    assert "has not answered for" in failing.errors[-1]
