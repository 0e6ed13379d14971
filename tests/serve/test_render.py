"""Settings, and what becomes of them in TorchServe's files; no server is started here."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

from detector import FileProblem, UsageError
from serve import grpc_stubs, java, query_patch
from serve.cpus import available_cpus
from serve.errors import PortTaken
from serve.process import start, stop
from serve.render import Layout, render
from serve.settings import PORTS, Settings, load_settings


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {key: value.replace("\\\\", "\\") for key, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path / "state", tmp_path)


def rendered(layout: Layout, **given: object) -> dict[str, str]:
    render(load_settings(given), "1.0", layout)
    return properties(layout.config / "config.properties")


def test_all_is_on_loopback_and_closed_by_default(layout):
    values = rendered(layout)
    addresses = {k: v for k, v in values.items() if k.endswith("_address")}
    assert len(addresses) == 5
    assert all("127.0.0.1" in v for v in addresses.values())
    assert values["enable_model_api"] == "false"
    assert values["install_py_dep_per_model"] == "false"
    assert "http" not in values["allowed_urls"]
    assert values["allowed_urls"].startswith("file://")


def test_another_host_opens_predictions_and_never_management(layout):
    values = rendered(layout, host="0.0.0.0")
    assert values["inference_address"] == "http://0.0.0.0:8080"
    assert values["grpc_inference_address"] == "0.0.0.0"
    for key in ("management_address", "metrics_address", "grpc_management_address"):
        assert "127.0.0.1" in values[key]


def test_batching_and_workers_reach_the_models_configuration(layout):
    values = rendered(layout, workers=3, batch_size=16, max_batch_delay=4, queue_size=50)
    model = json.loads(values["models"])["detector"]["1.0"]
    assert (model["minWorkers"], model["maxWorkers"], model["batchSize"], model["maxBatchDelay"]) == (3, 3, 16, 4)
    assert model["marName"] == "detector-onnx.mar"
    assert values["job_queue_size"] == "50"


def test_the_frontend_takes_more_than_the_handler_so_that_the_reason_is_ours(layout):
    assert int(rendered(layout, max_body_bytes=2**20)["max_request_size"]) > 2**20


def test_nothing_from_outside_overrides_the_rendered_files(layout):
    outside = {"TS_CONFIG_FILE": "/evil", "PYTHONPATH": "/elsewhere", "LOG_LOCATION": "/x", "PATH": os.environ["PATH"]}
    command = render(Settings(), "1.0", layout, outside)
    assert "TS_CONFIG_FILE" not in command.environment
    assert command.environment["PYTHONPATH"] == str(layout.python)
    assert command.environment["LOG_LOCATION"] == str(layout.logs)
    assert sys.executable in command.arguments


def test_torch_is_stood_in_for_on_the_onnx_road_only(layout):
    rendered(layout, archive="onnx")
    assert (layout.python / "torch.py").is_file()
    rendered(layout, archive="torchscript")
    assert not (layout.python / "torch.py").exists()


def test_the_log_configuration_is_xml_whatever_the_folder_is_called(tmp_path):
    layout = Layout(tmp_path / 'a "b" & <c>', tmp_path)
    rendered(layout, log_level="ERROR")
    root = ElementTree.parse(layout.config / "log4j2.xml").getroot()
    assert root.find("Loggers/Root").get("level") == "error"
    assert root.find("Appenders/RollingFile").get("fileName") == str(layout.logs / "torchserve.log")


def test_flags_come_before_variables_and_variables_before_defaults(monkeypatch):
    monkeypatch.setenv("UNMASK_WORKERS", "3")
    monkeypatch.setenv("UNMASK_BATCH_SIZE", "4")
    settings = load_settings({"workers": 5})
    assert (settings.workers, settings.batch_size, settings.rest_port) == (5, 4, 8080)


def test_threads_are_the_cpus_shared_out_among_the_workers():
    cpus = available_cpus()
    assert Settings(workers=1).worker_threads == cpus
    assert Settings(workers=4 * cpus).worker_threads == 1
    assert Settings(threads=3).worker_threads == 3


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"workers": -1}, "workers"),
        ({"archive": "keras"}, "archive"),
        ({"rest_port": 70000}, "rest_port"),
        ({"wrkers": 1}, "wrkers"),
    ],
)
def test_a_setting_that_can_not_be_is_named(given, word):
    with pytest.raises(UsageError, match=word):
        load_settings(given)


def test_every_setting_has_a_sentence():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_zero_takes_free_ports_all_different():
    settings = load_settings(dict.fromkeys(PORTS, 0)).with_ports()
    ports = [getattr(settings, field) for field in PORTS]
    assert len(set(ports)) == len(PORTS)
    assert all(ports)


@pytest.mark.parametrize("field", PORTS)
def test_a_taken_port_is_named_with_its_purpose_and_flag(field):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} \({PORTS[field]}\).*--{field.replace('_', '-')}"):
            load_settings(dict.fromkeys(PORTS, 0) | {field: port}).with_ports()


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "100000 100000"},
        {"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "150000 100000", "sys/fs/cgroup/a/b/cpu.max": "max 100000"},
        {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "20000 100000"},
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/x",
            "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
        },
    ],
    ids=["quota of this group", "quota of a group above", "less than one", "version 1"],
)
def test_a_container_limited_to_one_cpu_is_seen_as_such(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert available_cpus(tmp_path) == 1


def test_without_a_quota_the_affinity_counts(tmp_path):
    assert available_cpus(tmp_path) == len(os.sched_getaffinity(0))


def test_java_home_is_taken_at_its_word(tmp_path):
    with pytest.raises(FileProblem, match="JAVA_HOME"):
        java.find_java({"JAVA_HOME": str(tmp_path)})
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    assert java.find_java({"JAVA_HOME": str(tmp_path)}) == tmp_path / "bin" / "java"
    assert java.find_java({}).is_file()


def test_another_torchserves_jar_is_not_patched(tmp_path):
    jar = tmp_path / "model-server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr(query_patch.CLASS, b"\xca\xfe\xba\xbe another")
    with pytest.raises(FileProblem, match=r"0\.12\.0"):
        query_patch.write_patched_class(jar, tmp_path)


def test_stubs_are_generated_once_and_anew_when_they_are_gone(tmp_path, monkeypatch):
    monkeypatch.setenv("UNMASK_STUBS", str(tmp_path))
    folder = grpc_stubs.generate()
    made = (folder / "inference_pb2_grpc.py").stat().st_mtime_ns
    assert grpc_stubs.generate() == folder
    assert (folder / "inference_pb2_grpc.py").stat().st_mtime_ns == made
    assert [p.name for p in tmp_path.iterdir()] == [folder.name]


def test_the_rendered_command_is_printed_with_its_environment(artifacts, tmp_path):
    command = [sys.executable, "-m", "serve", "render", "--artifacts", artifacts, "--out", tmp_path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("env LOG_LOCATION=")
    assert "org.pytorch.serve.ModelServer" in printed
    assert (tmp_path / "store" / "detector-onnx.mar").is_file()
    assert (tmp_path / "config" / "config.properties").is_file()


def test_serve_imports_no_torch():
    program = "import sys, serve.__main__, serve.supervisor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_stopping_a_process_ends_its_whole_group(tmp_path):
    script = "trap '' TERM; sleep 300 & sleep 300 & echo $! > started; wait; wait"
    with (tmp_path / "output").open("wb") as output:
        process = start(["sh", "-c", script], dict(os.environ), tmp_path, output)
    while not (tmp_path / "started").exists():
        pass
    stop(process, patience=0.5)
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
