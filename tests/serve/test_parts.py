"""Java, stubs and processes: what a server is put together from."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from detector import FileError
from serve.client import grpc_stubs
from serve.jvm import java
from serve.processes.process import start, stop


def test_java_home_is_taken_at_its_word(tmp_path):
    with pytest.raises(FileError, match="JAVA_HOME"):
        java.find_java({"JAVA_HOME": str(tmp_path)})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    assert java.find_java({"JAVA_HOME": str(tmp_path)}) == tmp_path / "bin" / "java"
    assert java.find_java({}).is_file()


def test_stubs_are_generated_once_and_anew_when_they_are_gone(tmp_path, monkeypatch):
    monkeypatch.setenv("UNMASK_STUBS", str(tmp_path))
    folder = grpc_stubs.generate()
    made = (folder / "inference_pb2_grpc.py").stat().st_mtime_ns
    assert grpc_stubs.generate() == folder
    assert (folder / "inference_pb2_grpc.py").stat().st_mtime_ns == made
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_serve_imports_no_torch():
    program = "import sys, unmask.commands.serve, serve.supervisor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_stopping_a_process_ends_its_whole_group(tmp_path):
    script = "trap '' TERM; sleep 300 & sleep 300 & echo $! > started; wait; wait"
    with (tmp_path / "output").open("wb") as output:
        process = start(["sh", "-c", script], dict(os.environ), tmp_path, output)
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.01)
    stop(process, patience=0.5)
    assert process.returncode is not None
    left = [p for p in psutil.process_iter(["status"]) if _group(p.pid) == process.pid]
    assert all(p.info["status"] == psutil.STATUS_ZOMBIE for p in left)


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0
