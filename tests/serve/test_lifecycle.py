"""From start to stop: ready only when the workers are, drained at the end, and nothing left behind."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from detector import FileError, Manifest, sha256
from serve.client.client import GrpcClient, RestClient
from serve.record import find_record, record_of
from serve.settings import Settings
from serve.torchserve.artifacts import install_archives
from serve.torchserve.render import Layout
from tests.serve.running import asking, serve, serve_process, survivors
from tests.waiting import PATIENCE

pytestmark = pytest.mark.serve


def test_it_is_live_but_not_ready_until_the_workers_are_and_idle_it_ends_soon(start):
    begun = time.monotonic()
    server = start()
    seen = []
    while not seen or seen[-1] != 200:
        assert server.process.poll() is None, server.output
        status, body = server.probe("readyz")
        if status:
            seen.append(status)
            health = json.loads(body)
            assert (status == 200) == (health["reason"] == "ready")
            assert status == 503 or health["workers"]["ready"] == 1
            assert server.probe("livez")[0] == 200
        time.sleep(0.02)
    assert seen[0] == 503
    while not (said := re.search(r"ready after (\S+) s", server.output)):
        time.sleep(0.02)
    starting = time.monotonic() - begun
    assert 0 < float(said[1]) < starting + 0.05

    signalled = time.monotonic()
    server.signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0
    assert time.monotonic() - signalled < starting / 2  # left alone, TorchServe takes two seconds more


def test_a_server_is_found_after_the_clock_was_set(monkeypatch, tmp_path):
    record = record_of(Settings(), ["1.0"], str(tmp_path / "server.log"), None)
    record.save(tmp_path)
    (tmp_path / "proc").mkdir()
    for entry in Path("/proc").iterdir():
        (tmp_path / "proc" / entry.name).symlink_to(entry)
    boot_time, stat = psutil.boot_time(), tmp_path / "proc" / "stat"
    stat.unlink()
    stat.write_text(re.sub(r"(?m)^btime .*", f"btime {boot_time - 3600:.0f}", Path("/proc/stat").read_text()))
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    assert psutil.boot_time() == boot_time - 3600
    assert find_record(tmp_path) == record


def test_the_warm_up_spares_the_first_client_most_of_its_wait(start, artifacts, photos):
    def first(server) -> list[float]:
        """Seconds of the first request over REST and over gRPC."""
        times = []
        for client in (RestClient(server.record.rest_url), GrpcClient(server.record.grpc_target)):
            with closing(client):
                begun = time.perf_counter()
                assert client.predict(photos[0])["ok"]
                times.append(time.perf_counter() - begun)
        return times

    def compared() -> bool:
        cold = start(artifacts, "--warm-up-connections", "0").await_ready()
        without = first(cold)
        cold.stop()
        warm = start(artifacts, "--warm-up-connections", "20").await_ready()
        page = warm.probe("metrics")[1]
        counted = re.findall(r"^(unmask_(?!worker_cpu|jvm_gc)\w+(?:_total|_count)\S*) (?!0\.0$)", page, re.MULTILINE)
        assert counted == [], "the warm-up is no traffic"
        rest, grpc = first(warm)
        warm.stop()
        return rest < without[0] and grpc < without[1] / 2

    # Over REST the first request takes two and a half times as long without, and over gRPC twelve; other work on the
    # machine may strike one of the few that count.
    assert any(compared() for _ in range(3))


def test_a_worker_killed_under_load_takes_its_batch_with_it_and_nothing_else(artifacts, start, photos):
    begun = time.monotonic()
    server = start(artifacts, "--workers", "2", "--batch-size", "4").await_ready()
    starting = time.monotonic() - begun
    assert server.record.rest_url in server.output
    outcomes: list[dict[str, Any]] = []

    def ask(number: int) -> None:
        outcomes.append(server.predict(photos[number % len(photos)], grpc=number % 2 == 1))

    with asking(ask, clients=12):
        while len(outcomes) < 100:
            time.sleep(0.02)
        victim = server.workers()[0]
        victim.kill()
        killed = time.monotonic()
        while server.metric("unmask_workers_ready") == 2:
            time.sleep(0.02)
        status, body = server.probe("readyz")
        assert status == 200  # the other one answers
        assert json.loads(body)["reason"] == "ready with 1 of 2 workers"
        answered = len(outcomes)
        while server.metric("unmask_workers_ready") < 2:
            time.sleep(0.02)
        # As long as a start, with the second that TorchServe waits before; under load, so twice that.
        assert time.monotonic() - killed < 2 * starting + 1
        assert len(outcomes) > answered  # by the one that was left
    failed = [body for body in outcomes if not body["ok"]]
    assert len(failed) <= 4, failed
    # TorchServe takes KILL for the work of the kernel when memory runs out, if the process has an exit code by then.
    assert {body["error"]["code"] for body in failed} <= {"out_of_memory", "server_error"}, failed
    assert {body["error"]["message"] for body in failed} <= {"Worker died."}
    assert server.metric('unmask_worker_restarts_total{reason="killed"}') == 1
    told = [(event["pid"], event["version"], event["reason"]) for event in server.events("worker_ended")]
    assert told == [(victim.pid, "1.0", "killed")]

    family = server.family()
    server.jvm.kill()
    assert server.process.wait(PATIENCE) == 1
    assert "server_died" in server.output
    assert survivors(family) == []
    assert find_record(server.state) is None


def test_stop_drains_what_is_in_hand_and_leaves_no_process(artifacts, tmp_path, slow_photo):
    state = tmp_path / "state"
    log = state / "logs" / "server.log"
    log.parent.mkdir(parents=True)
    log.write_text("of a run before\n")
    begun = serve_process(
        "start", "--background", "--free-ports", "--artifacts", artifacts, "--state", state, "--workers", "1"
    )
    assert begun.returncode == 0, begun.stderr
    record = find_record(state)
    assert record is not None
    try:
        status = json.loads(serve_process("status", "--state", state).stdout)
        assert status["running"] is status["ready"] is True
        assert status["rest"] == record.rest_url
        assert status["logs"] == str(log)
        before, *lines = log.read_text().splitlines()
        assert before == "of a run before"
        assert "ready" in [json.loads(line)["event"] for line in lines]
        assert record.rest_url in begun.stdout
        second = serve_process("start", "--free-ports", "--artifacts", artifacts, "--state", state)
        assert second.returncode == 1
        assert f"process {record.pid}" in second.stderr

        supervisor = psutil.Process(record.pid)
        family = [supervisor, *supervisor.children(recursive=True)]
        client = RestClient(record.rest_url)
        with ThreadPoolExecutor(9) as pool, closing(client):
            waiting = [pool.submit(client.predict, slow_photo) for _ in range(8)]
            waiting[0].result()
            stopped = pool.submit(serve_process, "stop", "--state", state)
            assert all(w.result()["ok"] for w in waiting)
            assert stopped.result().returncode == 0
    finally:
        serve("stop", "--state", state)
    assert survivors(family) == []
    after = serve("status", "--state", state)
    assert after.returncode == 1
    assert json.loads(after.stdout)["running"] is False
    assert serve("stop", "--state", state).returncode == 0


def test_term_makes_it_unready_at_once_while_requests_finish(start, slow_photo):
    server = start().await_ready()
    family = server.family()
    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(server.predict, slow_photo, grpc=i % 2 == 0) for i in range(16)]
        while (begun := server.metric("unmask_requests_in_progress")) == 0:
            time.sleep(0.01)
        server.signal(signal.SIGTERM)
        while server.probe("readyz")[0] == 200:
            time.sleep(0.01)
        assert not all(w.done() for w in waiting), "unready only after the work was done"
        assert json.loads(server.probe("readyz")[1])["reason"] == "draining"
        verdicts = [w.result() for w in waiting]
        assert sum(v["ok"] for v in verdicts) >= begun
        assert {v["error"]["code"] for v in verdicts if not v["ok"]} <= {"overloaded"}, "accepted, and not answered"
    assert server.process.wait(PATIENCE) == 0
    assert survivors(family) == []


def test_term_during_the_start_ends_it_cleanly(start):
    server = start()
    while len(server.family()) < 2:
        time.sleep(0.02)
    family = server.family()
    server.signal(signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0
    assert survivors(family) == []
    assert "ready after" not in server.output


def test_a_killed_supervisor_takes_torchserve_with_it(start):
    server = start().await_ready()  # a worker that the JVM has not reached yet would wait for it for half a minute
    family = server.family()
    server.process.kill()
    assert survivors(family, PATIENCE) == []


def remake(artifacts: Path, out: Path, **changed: bytes) -> Path:
    """Artifacts whose ONNX archive holds other bytes under a name, all hashes made right again."""
    out.mkdir()
    manifest = Manifest.load(artifacts / "manifest.json")
    name = "detector-onnx.mar"
    with zipfile.ZipFile(artifacts / name) as old, zipfile.ZipFile(out / name, "w") as new:
        contents = {n: old.read(n) for n in old.namelist()} | {k.replace("__", "."): v for k, v in changed.items()}
        model = out / "model.onnx"
        model.write_bytes(contents["model.onnx"])
        inner = json.loads(contents["manifest.json"])
        inner["files"] = {"model.onnx": sha256(model)}
        contents["manifest.json"] = json.dumps(inner).encode()
        for n, content in contents.items():
            new.writestr(n, content)
    manifest.files.clear()
    manifest.files[name] = sha256(out / name)
    manifest.save(out / "manifest.json")
    return out


def test_a_model_that_can_not_be_loaded_is_never_ready_and_the_reason_is_told(start, artifacts, tmp_path):
    server = start(remake(artifacts, tmp_path / "corrupt", model__onnx=b"not a model " * 100))
    seen = set()
    while server.process.poll() is None:
        seen.add(server.probe("readyz")[0])
        time.sleep(0.05)
    assert server.process.returncode == 1
    assert 200 not in seen
    lines = server.errors
    assert [event["code"] for event in server.events("failed")] == ["startup_failed"]
    assert len(lines) == 1
    assert lines[0].startswith("error: the worker can't load the model: model.onnx: ONNX Runtime can't load it")
    assert "/" not in lines[0]


def test_a_handler_that_can_not_be_imported_is_told_too(start, artifacts, tmp_path):
    server = start(remake(artifacts, tmp_path / "broken", detector_handler__py=b"import no_such_module\n"))
    assert server.process.wait(PATIENCE) == 1
    assert "no_such_module" in server.output


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        ("changed", "detector-onnx.mar"),
        ("changed", "detector-torchscript.mar"),
        ("changed", "model.onnx"),
        ("changed", "manifest.json"),
        ("gone", "detector-onnx.mar"),
        ("gone", "manifest.json"),
    ],
)
def test_artifacts_that_are_not_what_the_manifest_says_are_refused(harm, name, artifacts, tmp_path):
    folder = tmp_path / "artifacts"
    shutil.copytree(artifacts, folder)
    if harm == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-2])
    with pytest.raises(FileError, match=re.escape(name)):
        install_archives(Settings(artifacts=(folder,)), Layout(tmp_path / "state", tmp_path))


def test_a_changed_file_keeps_the_server_from_starting(artifacts, tmp_path):
    shutil.copytree(artifacts, tmp_path / "artifacts")
    (tmp_path / "artifacts" / "model.onnx").write_bytes(b"changed")
    done = serve_process("start", "--free-ports", "--artifacts", tmp_path / "artifacts", "--state", tmp_path / "state")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "model.onnx" in done.stderr


def test_a_file_of_the_manifest_that_is_not_needed_may_be_left_out(artifacts, tmp_path):
    folder = tmp_path / "artifacts"
    shutil.copytree(artifacts, folder, ignore=shutil.ignore_patterns("model.onnx", "*torchscript*"))
    layout = Layout(tmp_path / "state", tmp_path)
    assert install_archives(Settings(artifacts=(folder,)), layout) == {"1.0": "detector-onnx-1.mar"}


def test_a_taken_port_is_named(artifacts, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ("--free-ports", "--grpc-port", str(port), "--state", tmp_path)
        done = serve_process("start", "--artifacts", artifacts, *flags)
    assert done.returncode == 1
    assert f"port {port} (gRPC)" in done.stderr


def test_a_state_folder_that_can_not_be_written_is_refused_in_one_line(artifacts, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    result = serve_process("start", "--free-ports", "--artifacts", artifacts, "--state", tmp_path / "file" / "state")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "--state" in result.stderr
    assert "Traceback" not in result.stderr
