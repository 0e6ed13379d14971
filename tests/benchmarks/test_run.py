"""The benchmark of a real server: its report agrees with the server's own counters, and it leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

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
    options = ["--users", "4", "--duration", str(SECONDS), "--warm-up", "1", "--photo-count", "20", "--workers", "1"]
    assert main(["bench", "run", "--artifacts", str(artifacts), *options, "--out", str(folder)]) == 0
    assert descendants() <= before
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def test_every_request_over_both_protocols_passes_its_check(report: dict[str, Any]) -> None:
    assert report["ok"] is True
    assert [run["protocol"] for run in report["runs"]] == ["rest", "grpc"]
    for run in report["runs"]:
        assert run["requests"] > 10
        assert run["failures"] == 0
        assert run["failure_reasons"] == {}
    assert report["settings"]["answers_checked_against"].startswith("the local scorer")


def test_the_report_counts_what_the_server_counted_and_no_warm_up(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        server = run["server"]
        assert server["handled"] == run["requests"]
        assert server["stages"]["decode"]["count"] == run["requests"]
        assert sum(server["photos"].values()) == run["requests"]
        assert server["errors"] == {}
    assert not any("clients count" in note for note in report["notes"])


def test_times_inside_the_server_are_within_those_the_clients_saw(report: dict[str, Any]) -> None:
    for run in report["runs"]:
        seen, inside = run["latency_ms"], run["server"]
        assert 0 < seen["p50"] <= seen["p90"] <= seen["p99"] <= seen["max"]
        assert 0 < sum(stage["mean"] or 0 for stage in inside["stages"].values()) < seen["mean"]
        assert run["server_cpu_ms"] > 0
        assert run["load_generator_cpu_ms"] > 0
        assert 0 <= run["other_cpus"] <= (psutil.cpu_count() or 1)
        assert run["requests_per_second"] == pytest.approx(run["requests"] / run["seconds"], rel=0.01)


def test_the_page_stands_alone_and_shows_the_numbers(out: Path, report: dict[str, Any]) -> None:
    page = (out / "index.html").read_text()
    assert page.count('src="data:image/png;base64,') == page.count("src=") == 3
    assert "http://" not in page
    assert "https://" not in page
    assert report["machine"]["label"] in page
    for run in report["runs"]:
        assert f"failed of {run['requests']:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") in page


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_ended_early_it_leaves_no_server_behind(number: int, code: int, artifacts: Path, tmp_path: Path) -> None:
    options = [
        "--artifacts",
        artifacts,
        "--duration",
        "60",
        "--warm-up",
        "60",
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
