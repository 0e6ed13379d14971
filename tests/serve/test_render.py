"""What becomes of settings in TorchServe's files; no server is started here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from serve.settings import Settings, load_settings
from serve.torchserve.render import Layout, render


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {key: json.loads(f'"{value}"') for key, _, value in (line.partition("=") for line in lines)}


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path / "state", tmp_path)


def rendered(layout: Layout, **given: object) -> dict[str, str]:
    render(load_settings(given), {"1.0": "detector-onnx-1.mar"}, layout)
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
    assert (model["minWorkers"], model["maxWorkers"], model["batchSize"], model["maxBatchDelay"]) == (3, 3, 16, 5)
    assert model["marName"] == "detector-onnx-1.mar"
    assert values["job_queue_size"] == "50"


def test_the_frontend_takes_more_than_the_handler_so_that_the_reason_is_ours(layout):
    assert int(rendered(layout, max_body_bytes=2**20)["max_request_size"]) > 2**20


def test_nothing_from_outside_overrides_the_rendered_files(layout):
    outside = {"TS_CONFIG_FILE": "/evil", "PYTHONPATH": "/elsewhere", "LOG_LOCATION": "/x", "PATH": os.environ["PATH"]}
    command = render(Settings(), {"1.0": "detector-onnx-1.mar"}, layout, outside)
    assert "TS_CONFIG_FILE" not in command.environment
    assert command.environment["PYTHONPATH"] == str(layout.python)
    assert command.environment["LOG_LOCATION"] == str(layout.logs)
    assert sys.executable in command.arguments


def test_torch_is_replaced_for_the_onnx_archives_only(layout):
    rendered(layout, archive="onnx")
    assert (layout.python / "torch.py").is_file()
    rendered(layout, archive="torchscript")
    assert not (layout.python / "torch.py").exists()


def test_the_log_configuration_is_xml_whatever_the_folder_is_called(tmp_path):
    layout = Layout(tmp_path / 'a "b" & <c>', tmp_path)
    rendered(layout, log_level="ERROR")
    root = ElementTree.parse(layout.config / "log4j2.xml").getroot()
    assert root.find("Loggers/Root").get("level") == "error"
    assert root.find("Appenders/Console").get("target") == "SYSTEM_OUT"


def test_the_rendered_command_is_printed_with_its_environment(artifacts, tmp_path):
    command = [sys.executable, "-m", "unmask", "serve", "render", "--artifacts", artifacts, "--out", tmp_path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("env LOG_LOCATION=")
    assert "org.pytorch.serve.ModelServer" in printed
    assert (tmp_path / "store" / "detector-onnx-1.mar").is_file()
    assert (tmp_path / "config" / "config.properties").is_file()
