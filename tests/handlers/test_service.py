"""The adapter to TorchServe, with TorchServe's own context; the real server's tests cover the rest of it."""

from __future__ import annotations

import json

import pytest

from detector import FileError
from handlers.service import Service, choose_device

context_module = pytest.importorskip("ts.context")


def test_a_worker_that_imported_another_detector_than_the_archives_refuses(archives, monkeypatch, tmp_path):
    reason = tmp_path / "reason.txt"
    monkeypatch.setenv("UNMASK_WORKER_LOAD_ERROR", str(reason))
    context = context_module.Context("detector", str(archives["onnx"]), {}, 4, None, "0.12.0")
    with pytest.raises(FileError, match="PYTHONPATH"):
        Service().initialize(context)
    assert "PYTHONPATH" in reason.read_text()


def test_each_request_of_a_batch_gets_its_own_status_type_and_id(archives, monkeypatch, photos):
    bodies, context = handled(archives, monkeypatch, [{"body": bytearray(photos[0])}, {"data": bytearray(b"x")}], [{}, {}])
    assert [b["request_id"] for b in bodies] == ["r0", "r1"]
    assert [context.get_response_status(i)[0] for i in range(2)] == [200, 415]
    assert {context.get_response_content_type(i) for i in range(2)} == {"application/json"}


def test_the_limits_come_from_the_environment(archives, monkeypatch, photos):
    monkeypatch.setenv("UNMASK_WORKER_MAX_PHOTOS", "1")
    monkeypatch.setenv("UNMASK_WORKER_MAX_BODY_BYTES", str(len(photos[0]) - 1))
    bodies, _ = handled(archives, monkeypatch, [{"data1": b"x", "data2": b"y"}, {"body": photos[0]}], [{}, {}])
    assert [b["error"]["code"] for b in bodies] == ["too_many_photos", "body_too_large"]


VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("name", "value", "echoed"),
    [
        ("traceparent", VALID, True),
        ("TraceParent", VALID, True),
        ("traceparent", VALID.upper(), False),
        ("traceparent", "ff" + VALID[2:], False),
        ("traceparent", VALID + "-00", False),
        ("traceparent", "00-" + "0" * 32 + VALID[35:], False),
        ("traceparent", VALID[:36] + "0" * 16 + "-01", False),
        ("traceparent", VALID + "\r\nX-Evil: 1", False),
        ("tracestate", VALID, False),
    ],
)
def test_a_valid_traceparent_is_echoed_and_any_other_ignored(archives, monkeypatch, photos, name, value, echoed):
    bodies, context = handled(archives, monkeypatch, [{"body": bytearray(photos[0])}], [{name: value}])
    assert bodies[0]["ok"]
    assert context.get_response_headers(0).get("traceparent") == (VALID if echoed else None)


def handled(archives, monkeypatch, inputs, headers):
    """The answers of a service to one batch, and the context that it answered in."""
    monkeypatch.setattr("detector.__file__", str(archives["onnx"] / "detector" / "__init__.py"))
    monkeypatch.delenv("UNMASK_WORKER_LOAD_ERROR", raising=False)
    context = context_module.Context("detector", str(archives["onnx"]), {}, 4, None, "0.12.0")
    service = Service()
    service.initialize(context)
    context.request_ids = {i: f"r{i}" for i in range(len(inputs))}
    context.request_processor = [context_module.RequestProcessor(h) for h in headers]
    return [json.loads(b) for b in service.handle(inputs, context)], context


@pytest.mark.parametrize(
    ("gpu", "wanted", "device"), [(None, None, "cpu"), (1, "cpu", "cpu"), (1, None, "cuda:1"), (0, "cuda", "cuda:0")]
)
def test_the_model_runs_on_the_gpu_that_torchserve_dealt(gpu, wanted, device):
    assert choose_device(gpu, wanted) == device


def test_a_gpu_that_torchserve_does_not_find_is_not_made_a_cpu_in_silence():
    with pytest.raises(FileError, match="nvidia-smi"):
        choose_device(None, "cuda")
