"""The adapter to TorchServe, with TorchServe's own context; the real server's tests cover the rest of it."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from detector import FileError
from handlers.service import Service, choose_device, request_item

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


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("my-request.1", True),
        ("x" * 128, True),
        ("short", False),
        ("x" * 129, False),
        ("12345678\r\nX-Evil: 1", False),
        ("café-request", False),
        ("two words", False),
    ],
)
def test_a_valid_request_id_is_kept_and_any_other_replaced(archives, monkeypatch, photos, sent, kept):
    photo = bytearray(photos[0])
    tensors = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [b64encode(photo).decode()]}
    named = {"name": "request_id", "shape": [1], "datatype": "BYTES", "data": [b64encode(sent.encode("latin-1")).decode()]}
    inputs = [{"body": photo}, {"data": photo, "request_id": sent.encode("latin-1")}]
    inputs.append({"body": json.dumps({"inputs": [tensors, named]}).encode()})
    bodies, context = handled(archives, monkeypatch, inputs, [{"X-Request-Id": sent}, {}, {"body": JSON}])
    expected = [sent if kept else f"r{n}" for n in range(3)]
    assert [bodies[0]["request_id"], bodies[1]["request_id"], bodies[2]["id"]] == expected
    assert [context.get_response_headers(n)["x-request-id"] for n in range(3)] == expected


def test_the_frontends_headers_are_none_of_the_requests(archives, monkeypatch, photos):
    ours = {"unmask-job": "1 0 true"}
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [b64encode(photos[0]).decode()]}
    inputs = [{"body": json.dumps({"inputs": [tensor]}).encode()}] * 2 + [{"data": photos[0]}, {"body": photos[0]}]
    closed = {"unmask-job": "1 0 false", "Unmask-Job": "1 0 true"}
    bodies, context = handled(
        archives, monkeypatch, inputs, [{"body": JSON, **ours}, {"body": JSON, **closed}, closed, {"Unmask-Job": "1 0 false"}]
    )
    assert bodies[0]["outputs"][0]["data"] in (["Real"], ["Fake"])
    assert "the client closed" in bodies[1]["error"]
    assert bodies[2]["error"]["code"] == "client_closed_request"
    assert [context.get_response_status(n)[0] for n in range(4)] == [200, 499, 499, 200]


@pytest.mark.parametrize(
    ("text", "number"), [("17", 17), ("-1", None), ("1e3", None), ("", None), ("9" * 20, None), ("٣", None)]
)
def test_a_frontends_number_is_a_whole_one(text, number):
    item = request_item({}, "r", {"unmask-job": f"{text} {text} true"})
    assert (item.queued, item.depth, item.closed) == (number, number, False)


@pytest.mark.parametrize("told", ["", "1", "1 2", "1 2 false false", "null true", {}, None])
def test_a_header_that_is_not_the_frontends_tells_nothing(told):
    item = request_item({}, "r", {"unmask-job": told})
    assert (item.queued, item.depth, item.closed) == (None, None, False)


JSON = {"content-type": "application/json"}


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
