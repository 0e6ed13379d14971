"""The benchmark of a real server: its report agrees with the server's own counters, and it leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks import alternating, curve
from benchmarks.curve import wrong
from benchmarks.report.samples import read_samples
from benchmarks.serving import running_server
from unmask.__main__ import main

pytestmark = pytest.mark.serve

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 3


def descendants() -> set[int]:
    """Process ids of all that this process started, and that those started."""
    return {p.pid for p in psutil.Process().children(recursive=True)}


@pytest.fixture(scope="module")
def out(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a short benchmark over both protocols."""
    folder = tmp_path_factory.mktemp("benchmark") / "report"
    before = descendants()
    options = ["--users", "4", "--shares", "0.2", "--duration", str(SECONDS), "--warm-up", "1", "--photo-count", "20"]
    options += ["--rounds", "1", "--roofline-seconds", "0.5", "--workers", "1", "--price-per-hour", "0.5"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alternating, "SECONDS", 0.5)
        patch.setattr(alternating, "SATURATED_SECONDS", 1.0)
        patch.setattr(curve, "BATCHES", (8,))
        # A busy machine may keep the open loop from its plan, which is a note and no failure.
        assert main(["bench", "run", "--artifacts", str(artifacts), *options, "--out", str(folder)]) == 0
    assert descendants() <= before
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def test_every_request_over_both_protocols_passes_its_check(report: dict[str, Any]) -> None:
    assert report["ok"] is True
    closed = [(run["protocol"], run["users"]) for run in report["runs"] if run["loop"] == "closed"]
    assert closed == [("rest", 4), ("grpc", 4)]
    for run in report["runs"]:
        assert run["requests"] > 5
        assert wrong(run) == 0, run["failure_reasons"]
    assert report["settings"]["answers_checked_against"].startswith("the local scorer")


def test_an_open_loop_sends_at_its_share_of_what_the_closed_loops_reached(report: dict[str, Any]) -> None:
    for protocol in ("rest", "grpc"):
        mine = [run for run in report["runs"] if run["protocol"] == protocol]
        best = max(run["requests_per_second"] for run in mine if run["loop"] == "closed")
        said = [note for note in report["notes"] if note.startswith(f"{protocol}, 0.2 of capacity: not measured")]
        opened = [run for run in mine if run["loop"] == "open"]
        assert len(opened) + len(said) == 1
        for run in opened:
            assert run["rate"] == pytest.approx(0.2 * best, abs=1e-3)
            assert run["planned"] == pytest.approx(run["rate"] * SECONDS, abs=6 * (run["rate"] * SECONDS) ** 0.5 + 1)


def test_the_report_counts_what_the_server_counted_and_no_warm_up(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        if run["failures"]:  # an overloaded machine: the open loop was refused
            continue
        server = run["server"]
        assert server["handled"] == run["requests"]
        assert server["stages"]["decode"]["count"] == run["requests"]
        assert sum(server["photos"].values()) == run["requests"]
        assert server["errors"] == {}
        assert not any(note.startswith(f"{run['name']}: the clients count") for note in report["notes"])


def test_the_stages_add_up_to_what_the_clients_saw(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        seen, inside = run["latency_ms"], run["server"]
        assert 0 < seen["p50"] <= seen["p90"] <= seen["p99"] <= seen["max"]
        assert sum(run["stack"].values()) == pytest.approx(seen["mean"], abs=0.01)
        assert {"read", "decode", "inference", "postprocess", "transport"} <= set(run["stack"])
        if not run["failures"]:
            assert min(run["stack"].values()) >= 0
            assert 0 < sum(stage["mean"] or 0 for stage in inside["stages"].values()) < seen["mean"]
        assert run["server_cpu_ms"] > 0
        assert run["load_generator_cpu_ms"] > 0
        assert 0 <= run["other_cpus"] <= (psutil.cpu_count() or 1)


def test_the_capacity_has_its_share_of_the_roofline_and_its_price(report: dict[str, Any]) -> None:
    most = report["roofline"]["throughput"]["photos_per_second"]
    assert [(row["protocol"], row["device"]) for row in report["capacity"]] == [("rest", "cpu"), ("grpc", "cpu")]
    for row in report["capacity"]:
        assert row["of_roofline"] == pytest.approx(row["photos_per_second"] / most, abs=1e-3)
        seconds = 1e6 / row["photos_per_second"]
        assert row["cost_of_a_million"] == pytest.approx(0.5 * seconds / 3600, rel=1e-3)
    assert report["roofline"]["saturated"]["rounds"] == report["roofline"]["single_photo_ms"]["rounds"] == 1


def test_the_samples_are_those_of_the_report(out: Path, report: dict[str, Any]) -> None:
    samples = read_samples(out)
    assert [run.name for run in samples.runs] == [run["name"] for run in report["runs"]]
    for recorded, run in zip(samples.runs, report["runs"], strict=True):
        took = [ms for ms, problem in zip(recorded.milliseconds, recorded.problems, strict=True) if not problem]
        assert np.median(took) == pytest.approx(run["latency_ms"]["p50"], abs=2e-3)
    assert samples.about["manifest_sha256"] == report["about"]["manifest_sha256"]
    assert main(["bench", "compare", str(out), str(out), "--tolerance", "0.5"]) == 0


def test_the_page_stands_alone_and_shows_the_numbers(out: Path, report: dict[str, Any]) -> None:
    page = (out / "index.html").read_text()
    assert page.count("<svg") == 5
    assert not re.search(r"(?:src|href)=[\"'](?!#)|url\((?!#)|https?://", page)
    assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', page)) <= set(re.findall(r' id="([\w-]+)"', page))
    assert report["machine"]["label"] in page
    assert report["about"]["manifest_sha256"] in page
    for run in report["runs"]:
        assert f"<td>{run['requests']:,}</td>".replace(",", "\N{NARROW NO-BREAK SPACE}") in page


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_ended_early_it_leaves_no_server_behind(number: int, code: int, artifacts: Path, tmp_path: Path) -> None:
    options = [
        "--artifacts",
        artifacts,
        "--duration",
        "60",
        "--warm-up",
        "60",
        "--rounds",
        "0",
        "--roofline-seconds",
        "0.5",
        "--locust",
        "--protocol",
        "rest",
        "--photo-count",
        "4",
        "--workers",
        "1",
    ]
    command = [sys.executable, "-m", "unmask", "bench", "run", *map(str, options), "--out", str(tmp_path / "report")]
    log = tmp_path / "stderr"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stderr=errors, stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 90
            while "warm-up rest" not in log.read_text(errors="replace"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            time.sleep(1)
            started = psutil.Process(process.pid).children(recursive=True)
            assert len(started) >= 3  # Locust, the supervisor, the JVM
            locust = [p for p in started if "locust" in p.cmdline()]
            process.send_signal(number)
            assert process.wait(60) == code
        finally:
            process.kill()
            process.wait()
    if number == signal.SIGKILL:  # then nobody tells Locust, which ends by itself when its time is over
        for each in locust:
            each.kill()
    _, left = psutil.wait_procs(started, timeout=60)
    assert left == []
    assert not (tmp_path / "report").exists()


def test_a_server_that_refuses_its_model_is_reported_with_its_reason(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tampered = tmp_path / "artifacts"
    shutil.copytree(artifacts, tampered)
    with (tampered / "detector-onnx.mar").open("ab") as archive:
        archive.write(b"x")
    before = descendants()
    assert main(["bench", "run", "--artifacts", str(tampered), "--photo-count", "2", "--out", str(tmp_path / "report")]) == 1
    assert "detector-onnx.mar" in capsys.readouterr().err
    assert descendants() <= before


def test_a_target_that_does_not_answer_is_exit_code_1(
    deaf_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ["--target", f"http://127.0.0.1:{deaf_port}", "--target-metrics", f"http://127.0.0.1:{deaf_port}/metrics"]
    assert main(["bench", "run", *target, "--out", str(tmp_path)]) == 1
    assert "metrics_unreachable" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--target", "localhost"]])
def test_a_run_without_a_server_is_wrong_usage(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "run", *options]) == 2
    assert "--target" in capsys.readouterr().err


def test_a_running_server_is_looked_for_at_its_usual_ports() -> None:
    server = running_server("http://10.0.0.5:8080/", None, None)
    assert (server.target.rest, server.target.grpc) == ("http://10.0.0.5:8080", "10.0.0.5:7070")
    assert server.metrics == "http://10.0.0.5:8090/metrics"
    assert running_server("https://[::1]:8443", None, None).target.grpc == "[::1]:7070"
    named = running_server("http://a:1", "b:2", "http://c:3/metrics")
    assert (named.target.grpc, named.metrics) == ("b:2", "http://c:3/metrics")
