"""The fault matrix: a fault is provoked, a metric moves, an alert fires, what the runbook says is done, and the alert ends."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import closing, suppress
from typing import Any

import httpx
import psutil
import pytest

from serve.client.client import RestClient
from tests.faults.cell import Cell
from tests.faults.load import WRK, Wrk
from tests.faults.versions import broken, heavy, swapped
from tests.prometheus import await_
from tests.serve.running import survivors
from tests.waiting import PATIENCE

pytestmark = pytest.mark.faults

RESTARTS = 'unmask_worker_restarts_total{{reason="{}"}}'
SMALL = ("--workers", "1", "--threads", "1", "--batch-size", "2", "--queue-size", "20")
MANY = 60  # clients: more than the queue and the worker of a small server hold
OLD, NEW = "1.0", "2.0"
BURN = 600.0  # how many times shorter the windows are where a burn rate's longest short one, six hours, has to pass


def kill(it: Cell) -> None:
    """Kill a worker, if the server is ready."""
    with suppress(psutil.NoSuchProcess):
        if it.server.probe("readyz")[0] == 200:
            for worker in it.server.workers()[:1]:
                worker.kill()


def test_an_idle_worker_is_killed(cell):
    it = cell("worker killed, idle")
    it.quiet("UnmaskWorkerRestarted")
    it.moves(RESTARTS.format("killed"), lambda: kill(it))
    it.fires("UnmaskWorkerRestarted")
    it.acts("UnmaskWorkerRestarted")
    it.ends("UnmaskWorkerRestarted")
    assert it.server.predict(it.photos[0])["ok"]


def test_busy_workers_are_killed_again_and_again(cell):
    it = cell("worker killed, busy, again and again", factor=15)
    clients = it.begin(it.traffic(rest=4, grpc=4, pause=0))
    it.quiet("UnmaskWorkersRestartLoop")
    it.moves(RESTARTS.format("killed"), lambda: kill(it))
    it.fires("UnmaskWorkersRestartLoop", again=lambda: kill(it))
    it.acts("UnmaskWorkersRestartLoop")
    it.ends("UnmaskWorkersRestartLoop")
    assert clients.counted("rest")["200"]
    assert clients.counted("grpc")["OK"]


def test_a_worker_is_missing(cell):
    it = cell("one of two workers killed", "--workers", "2", "--threads", "1", factor=1200)
    it.quiet("UnmaskWorkersMissing")
    it.moves("sum(unmask_workers_wanted) - sum(unmask_workers_ready)", lambda: kill(it))
    it.fires("UnmaskWorkersMissing")
    it.acts("UnmaskWorkersMissing")
    it.ends("UnmaskWorkersMissing")


def test_a_worker_hangs(cell):
    it = cell("worker hung (SIGSTOP)", "--response-timeout", "3")
    it.quiet("UnmaskWorkerRestarted")
    (worker,) = it.server.workers()
    it.begin(it.traffic())
    it.moves(RESTARTS.format("hung"), worker.suspend)
    it.fires("UnmaskWorkerRestarted")
    it.acts("UnmaskWorkerRestarted")
    it.ends("UnmaskWorkerRestarted")


def test_the_jvm_hangs(cell):
    it = cell("JVM hung (SIGSTOP)", "--drain-limit", "2")
    it.quiet("UnmaskNotReady")
    family = it.server.family()
    it.moves("unmask_ready", it.server.jvm.suspend)
    it.fires("UnmaskNotReady")
    await_(lambda: it.server.probe("livez")[0] == 503, "/livez is false")
    it.acts("UnmaskNotReady")
    it.ends("UnmaskNotReady")
    assert survivors(family) == []


def test_the_jvm_is_killed(cell):
    it = cell("JVM killed")
    it.quiet("UnmaskMetricsAbsent", "UnmaskScrapeFails")
    it.moves("up", it.server.jvm.kill)
    it.fires("UnmaskMetricsAbsent", "UnmaskScrapeFails")
    assert it.server.process.wait(PATIENCE) == 1
    it.acts("UnmaskMetricsAbsent")
    it.ends("UnmaskMetricsAbsent", "UnmaskScrapeFails")


def test_the_supervisor_hangs(cell):
    it = cell("supervisor hung (SIGSTOP) until a pipe is full")
    alerts = ("UnmaskScrapeFails", "UnmaskRecordsLost")
    it.quiet(*alerts)
    it.begin(it.traffic())
    supervisor = psutil.Process(it.server.process.pid)
    it.moves("up", supervisor.suspend)
    it.fires("UnmaskScrapeFails")
    pipe = os.open(it.state / "work" / "requests", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):  # as hours of requests would fill it
        while True:
            os.write(pipe, b"-" * 99 + b"\n")
    os.close(pipe)
    supervisor.resume()
    it.fires(*alerts)
    it.acts(*alerts)
    it.ends(*alerts)


@pytest.mark.skipif(WRK is None, reason="wrk is not installed")
def test_too_much_comes_over_rest(cell, tmp_path):
    it = cell("overload, REST", *SMALL, factor=BURN)
    alerts = ("UnmaskAvailabilityBurn", "UnmaskRefusing")
    it.quiet(*alerts)
    url = it.server.record.rest_url
    it.moves(
        'sum(unmask_requests_total{protocol="rest", code="503"})',
        lambda: it.begin(closing(Wrk(tmp_path / "wrk", url, it.photos[0], connections=MANY, seconds=600))),
    )
    it.fires(*alerts)
    it.acts(*alerts)
    it.ends(*alerts)


def test_too_much_comes_over_grpc(cell):
    it = cell("overload, gRPC", *SMALL)
    alerts = ("UnmaskRefusing", "UnmaskSaturated")
    it.quiet(*alerts)
    it.moves(
        'sum(unmask_requests_total{protocol="grpc", code="RESOURCE_EXHAUSTED"})',
        lambda: it.begin(it.traffic(rest=0, grpc=MANY, pause=0)),
    )
    it.fires(*alerts)
    it.acts(*alerts)
    it.ends(*alerts)


def test_large_photos_make_answers_slow(cell, slow_photo):
    it = cell("large photos", *SMALL, factor=BURN)
    it.quiet("UnmaskLatencyBurn")
    few, it.photos = it.photos, [slow_photo]
    with it.traffic(rest=4, grpc=4, pause=0):
        it.moves('sum(unmask_request_duration_seconds_count) - sum(unmask_request_duration_seconds_bucket{le="0.25"})', int)
        it.fires("UnmaskLatencyBurn")
        it.acts("UnmaskLatencyBurn")
    it.photos = few
    it.begin(it.traffic())
    it.ends("UnmaskLatencyBurn")


def test_a_drain_is_no_fault(cell, slow_photo):
    it = cell("drain", "--drain-grace", "5")
    it.photos = [slow_photo]
    it.begin(it.traffic(rest=2, grpc=2))
    it.moves("unmask_draining", lambda: it.server.signal(signal.SIGTERM))
    during = set()
    while it.server.process.poll() is None and it.prometheus.query("up") == 1:
        during |= it.prometheus.firing()
        time.sleep(0.1)
    it.row.alert = "none"
    assert not during & {"UnmaskNotReady", "UnmaskMetricsAbsent", "UnmaskScrapeFails", "UnmaskWorkersMissing"}
    assert it.server.process.wait(PATIENCE) == 0


def test_bad_photos_come(cell):
    it = cell("bad photos")
    it.quiet("UnmaskBadPhotos")
    good, it.photos = it.photos, [it.photos[0], it.photos[1][: len(it.photos[1]) // 2], b"no photo"]
    with it.traffic(rest=2, grpc=2):
        it.moves('sum(unmask_photo_errors_total{code="truncated_image"})', int)
        it.fires("UnmaskBadPhotos")
        assert not it.prometheus.firing() & {"UnmaskAvailabilityBurn", "UnmaskVersionFails"}  # theirs, not ours
        it.acts("UnmaskBadPhotos")
    it.photos = good
    it.begin(it.traffic(rest=2, grpc=2))
    it.ends("UnmaskBadPhotos")


def test_requests_stop_coming(cell):
    it = cell("no traffic")
    with it.traffic():
        it.prometheus.awaited("unmask:requests:rate5m > 1", "requests are counted")
        it.prometheus.scrapes(60)
        it.quiet("UnmaskNoTraffic")
    it.moves("unmask:requests:rate5m", int)
    it.fires("UnmaskNoTraffic")
    it.acts("UnmaskNoTraffic")
    it.begin(it.traffic())
    it.ends("UnmaskNoTraffic")


def test_a_changed_file_keeps_a_server_from_coming_back(cell, artifacts, tmp_path):
    copy = tmp_path / "changed"
    shutil.copytree(artifacts, copy)
    it = cell("wrong artifact", folders=[copy])
    it.quiet("UnmaskMetricsAbsent")
    archive = copy / "detector-onnx.mar"
    right = archive.read_bytes()
    archive.write_bytes(right[:-2])
    it.moves("up", it.server.stop)
    refused = it.desk.shell("unmask serve start --background --artifacts artifacts")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert archive.name in refused.stderr
    it.row.notes.append(f"Wrong artifact: exit code 1, `{refused.stderr.strip()}`")
    it.fires("UnmaskMetricsAbsent")
    archive.write_bytes(right)  # the half of the action that no command has: the archive as it was exported
    it.acts("UnmaskMetricsAbsent")
    it.ends("UnmaskMetricsAbsent")


def test_a_wiped_metrics_folder_is_no_fault(cell):
    it = cell("metrics folder wiped")
    it.begin(it.traffic())
    files = list(it.state.rglob("*.db"))
    assert files
    before = it.prometheus.query("sum(unmask_inferences_total)")
    it.moves("sum(unmask_inferences_total)", lambda: [file.unlink() for file in files])
    it.row.alert = "none"
    it.prometheus.scrapes(40)
    assert it.prometheus.query("sum(unmask_inferences_total)") > before
    assert it.prometheus.query("sum(resets(unmask_inferences_total[1h]))") == 0
    assert "UnmaskWorkerMetricsAbsent" not in it.prometheus.firing()


def test_scores_drift(cell):
    it = cell("drift", factor=BURN)
    with closing(RestClient(it.server.record.rest_url)) as client:
        fake = [photo for photo in it.photos if client.predict(photo)["prediction"] == "Fake"]
    it.quiet("UnmaskScoreDrift")
    usual, it.photos = it.photos, fake
    with it.traffic(rest=2, grpc=2, pause=0):
        it.moves("unmask:score:psi", int)
        it.fires("UnmaskScoreDrift")
        it.acts("UnmaskScoreDrift")
    it.photos = usual
    it.begin(it.traffic(rest=2, grpc=2, pause=0))
    it.ends("UnmaskScoreDrift")


def both(it: Cell, rest: int = 1) -> None:
    """Have clients ask the default version, and others the first one."""
    it.begin(it.traffic(rest=rest, grpc=1))
    it.begin(it.traffic(rest=rest, grpc=1, version=OLD))


def promoted(it: Cell) -> None:
    """Make the new version the default one, as somebody did too early."""
    assert it.desk.shell(f"unmask serve promote {NEW}").returncode == 0


def test_a_version_gives_no_numbers(cell, artifacts, tmp_path):
    it = cell("version whose model diverged", folders=[artifacts, broken(artifacts, tmp_path / "new", NEW)])
    alerts = ("UnmaskModelFails", "UnmaskVersionFails")
    both(it)
    it.quiet(*alerts)
    it.moves('sum(unmask_photo_errors_total{code="model_output_error"})', lambda: promoted(it))
    it.fires(*alerts)
    it.acts(*alerts)
    it.ends(*alerts)


def test_a_version_is_slow(cell, artifacts, tmp_path):
    it = cell("version with a larger model", folders=[artifacts, heavy(artifacts, tmp_path / "new", NEW)])
    both(it)
    it.quiet("UnmaskVersionSlow")
    it.moves('sum(unmask_request_duration_seconds_count{version="2.0"})', lambda: promoted(it))
    it.fires("UnmaskVersionSlow")
    it.acts("UnmaskVersionSlow")
    it.ends("UnmaskVersionSlow")


def test_a_version_answers_worse(cell, artifacts, tmp_path):
    # Seven days become half a minute.
    it = cell("version that answers worse", folders=[artifacts, swapped(artifacts, tmp_path / "new", NEW)], factor=20_000)
    alerts = ("UnmaskVersionWorse", "UnmaskCalibrationOff")
    both(it)
    old = [it.server.predict(photo) for photo in it.photos]
    truth = ["fake" if verdict["prediction"] == "Fake" else "real" for verdict in old]
    # The old version's scores are right by and large: of ten photos, the label of one is the other one.
    labels = [("real" if label == "fake" else "fake") if i % 10 == 0 else label for i, label in enumerate(truth)]

    def label(verdicts: list[dict[str, Any]], version: str) -> None:
        """Send the labels of some photos back, with the scores that a version gave them."""
        body = [
            {"version": version, "score": verdict["calibrated"], "label": right}
            for verdict, right in zip(verdicts, labels, strict=True)
        ]
        httpx.post(f"{it.server.record.supervisor_url}/feedback", json=body * 5, timeout=30).raise_for_status()

    it.quiet(*alerts)
    promoted(it)
    new = [it.server.predict(photo) for photo in it.photos]
    assert {verdict["model"]["version"] for verdict in new} == {NEW}
    it.moves('sum(unmask_feedback_total{version="2.0"})', lambda: label(new, NEW))
    it.fires(*alerts, again=lambda: (label(old, OLD), label(new, NEW)))  # both versions' labels within one window
    it.acts(*alerts)
    it.ends(*alerts)
