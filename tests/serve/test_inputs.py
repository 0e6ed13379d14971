"""The forms of a request on a real TorchServe: several photos in a form, KServe's protocols v1 and v2, REST and gRPC."""

from __future__ import annotations

import json
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest

from detector.tolerance import LOGIT, PROBABILITY, TOLERANCES, disagreement
from detector.worker_settings import WorkerSettings
from serve.client import grpc_stubs
from serve.settings import Settings
from serve.torchserve.render import Layout, render

NUMBERS = ("logit", "raw_prob", "calibrated", "confidence")


@pytest.fixture(scope="module")
def base(server):
    return server.record.rest_url.removesuffix("/predictions/detector")


@pytest.fixture(scope="module")
def infer(server):
    """KServe's ModelInfer over gRPC: photos and further tensors to the response's outputs."""
    messages, services = grpc_stubs.load("open_inference_grpc")
    channel = grpc.insecure_channel(server.record.grpc_target)
    stub = services.GRPCInferenceServiceStub(channel)
    tensor, contents = messages.ModelInferRequest.InferInputTensor, messages.InferTensorContents

    def call(*photos, call_id="mine", model="detector", raw=(), shape=None, **flags):
        inputs = [
            tensor(name="images", datatype="BYTES", shape=shape or [len(photos)], contents=contents(bytes_contents=photos))
        ]
        for name, value in flags.items():
            inputs.append(tensor(name=name, datatype="BOOL", shape=[1], contents=contents(bool_contents=[value])))
        request = messages.ModelInferRequest(model_name=model, id=call_id, inputs=inputs, raw_input_contents=raw)
        return stub.ModelInfer(request, timeout=60)

    yield call
    channel.close()


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def v1(*photos: bytes) -> dict[str, object]:
    return {"instances": [{"b64": b64(p)} for p in photos]}


def v2(*photos: bytes, **more: object) -> dict[str, object]:
    tensor = {"name": "images", "shape": [len(photos)], "datatype": "BYTES", "data": [b64(p) for p in photos]}
    return {"id": "mine", "inputs": [tensor], **more}


def post(base, path, document, **options) -> httpx.Response:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    options = {"headers": {"Content-Type": "application/json"}} | options
    return httpx.post(base + path, content=content, timeout=60, trust_env=False, **options)


def columns(body) -> dict[str, list]:
    """The outputs of a v2 response over REST."""
    return {output["name"]: output["data"] for output in body["outputs"]}


def grpc_columns(response) -> dict[str, list]:
    """The same over gRPC, where TorchServe leaves each text as its JSON."""
    fields = {"FP32": "fp32_contents", "INT32": "int_contents", "BYTES": "bytes_contents"}
    values = {o.name: list(getattr(o.contents, fields[o.datatype])) for o in response.outputs}
    return {name: [json.loads(v) if isinstance(v, bytes) else v for v in column] for name, column in values.items()}


@pytest.fixture(scope="module")
def plain(server, photos):
    """What one photo after the other is answered."""
    return [server.predict(p) for p in photos[:6]]


def assert_rows(found, plain):
    assert list(found["prediction"]) == [p["prediction"] for p in plain]
    for name in NUMBERS:
        assert not disagreement(found[name], [p[name] for p in plain], TOLERANCES[name])
    assert found["cropped"] == pytest.approx([p["cropped"] for p in plain])
    assert found["status"] == [200] * len(plain)
    assert not any(found["error_code"] + found["error_message"])


@pytest.mark.parametrize("path", ["/v1/models/detector:predict", "/predictions/detector", "/predictions/detector/1.0"])
@pytest.mark.parametrize("declared", ["application/json", "image/jpeg"])
def test_v1_instances_are_answered_in_order_wherever_they_are_sent_and_whatever_they_are_called(
    base, photos, plain, path, declared
):
    response = post(base, path, v1(*photos[:6]), headers={"Content-Type": declared})
    assert response.status_code == 200
    predictions = response.json()["predictions"]
    for found, before in zip(predictions, plain, strict=True):
        assert found["prediction"] == before["prediction"]
        assert not disagreement(found["logit"], before["logit"], LOGIT)
        assert found["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v2/models/detector/infer", "/predictions/detector"])
def test_v2_tensors_are_answered_as_tensors(base, photos, plain, path):
    response = post(base, path, v2(*photos[:6]))
    assert response.status_code == 200
    body = response.json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("detector", "1.0", "mine")
    assert_rows(columns(body), plain)
    some = post(base, path, v2(photos[0], outputs=[{"name": "logit"}])).json()
    assert list(columns(some)) == ["logit"]


def test_v2_over_grpc_gives_the_same_tensors_while_other_requests_share_the_batches(server, infer, photos, plain):
    def one(n):
        kind = n % 3
        if kind == 0:
            return grpc_columns(infer(*photos[:3], call_id=f"call {n}"))
        return server.predict(photos[n % 6], grpc=kind == 1)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(48)))
    for n, answer in enumerate(answers):
        if n % 3 == 0:
            assert_rows(answer, plain[:3])
        else:
            assert not disagreement(answer["logit"], plain[n % 6]["logit"], LOGIT)
    response = infer(photos[0], call_id="its own")
    assert (response.id, response.model_name, response.model_version) == ("its own", "detector", "1.0")
    assert infer(photos[0], call_id="").id


def test_several_photos_come_as_numbered_fields_and_grpc_inputs_too(server, base, photos, plain):
    fields = {"data2": photos[1], "data10": b"nothing", "data1": photos[0]}
    form = httpx.post(server.record.rest_url, files=fields, timeout=60, trust_env=False).json()
    messages, services = grpc_stubs.load()
    with grpc.insecure_channel(server.record.grpc_target) as channel:
        request = messages.PredictionsRequest(model_name="detector", input=fields)
        called = json.loads(services.InferenceAPIsServiceStub(channel).Predictions(request, timeout=60).prediction)
    for body in (form, called):
        first, second, third = body["predictions"]
        assert not disagreement([first["logit"], second["logit"]], [p["logit"] for p in plain[:2]], LOGIT)
        assert (third["ok"], third["error"]["code"], third["status"]) == (False, "unsupported_format", 415)


def test_json_is_json_over_plain_grpc_too(server, photos, plain):
    messages, services = grpc_stubs.load()
    with grpc.insecure_channel(server.record.grpc_target) as channel:
        request = messages.PredictionsRequest(model_name="detector", input={"data": json.dumps(v1(*photos[:2])).encode()})
        body = json.loads(services.InferenceAPIsServiceStub(channel).Predictions(request, timeout=60).prediction)
    assert not disagreement([p["logit"] for p in body["predictions"]], [p["logit"] for p in plain[:2]], LOGIT)


def test_a_truncated_jpeg_among_others_fails_alone_in_every_form(base, infer, photos, plain):
    sent = [photos[0], photos[1][: len(photos[1]) // 2], photos[2]]
    listed = post(base, "/v1/models/detector:predict", v1(*sent))
    assert listed.status_code == 200
    first, second, third = listed.json()["predictions"]
    assert not disagreement([first["logit"], third["logit"]], [plain[0]["logit"], plain[2]["logit"]], LOGIT)
    assert (second["error"]["code"], second["status"]) == ("truncated_image", 422)
    for found in (columns(post(base, "/v2/models/detector/infer", v2(*sent)).json()), grpc_columns(infer(*sent))):
        assert found["status"] == [200, 422, 200]
        assert found["error_code"] == ["", "truncated_image", ""]
        assert found["prediction"][1] == ""
        assert found["logit"][1] is None or np.isnan(found["logit"][1])
        assert not disagreement([found["logit"][0], found["logit"][2]], [plain[0]["logit"], plain[2]["logit"]], LOGIT)


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"url": "http://127.0.0.1:1/face.jpg"}, 400, "url_not_accepted"),
        (b'{"instances": [', 400, "bad_request"),
        ({"photo": "AAAA"}, 400, "bad_request"),
        ({"instances": ["AAAA"] * 33}, 413, "too_many_photos"),
        ({"instances": ["A" * WorkerSettings.max_body_bytes]}, 413, "body_too_large"),
        ({"instances": [], "parameters": {}}, 400, "bad_request"),
    ],
)
def test_json_that_can_not_be_read_is_refused_with_a_reason(base, document, status, code):
    response = post(base, "/v1/models/detector:predict", document)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code


def test_the_limits_that_a_server_is_given_are_the_handlers(tmp_path):
    settings = Settings(max_photos=3, max_body_bytes=2**20)
    environment = render(settings, {"1.0": "detector-onnx-1.mar"}, Layout(tmp_path / "state", tmp_path)).environment
    assert (environment["UNMASK_WORKER_MAX_PHOTOS"], environment["UNMASK_WORKER_MAX_BODY_BYTES"]) == ("3", str(2**20))


def test_what_is_no_photo_has_the_reason_in_its_place(base):
    response = post(base, "/v1/models/detector:predict", {"instances": [{"url": "http://127.0.0.1:1/"}, "no base64"]})
    assert response.status_code == 400
    assert [p["error"]["code"] for p in response.json()["predictions"]] == ["url_not_accepted", "invalid_base64"]


def test_a_refused_v2_request_has_the_protocols_error(base, photos):
    response = post(base, "/v2/models/detector/infer", v2(photos[0], outputs=[{"name": "mood"}]))
    assert response.status_code == 400
    body = response.json()
    assert "logit" in body["error"]
    assert columns(body)["error_code"] == ["bad_request"]


def test_bad_calls_over_v2_grpc_are_answered_and_end_no_worker(server, infer, photos):
    before = {p.pid for p in server.family()}
    bad = {
        "unsupported_format": infer(b"nothing"),
        "missing_image": infer(raw=[photos[0]], shape=[1]),
        "bad_request": infer(photos[0], shape=[2]),
        "too_many_photos": infer(*[b"x"] * 33),
        "body_too_large": infer(bytes(WorkerSettings.max_body_bytes * 13 // 16)),  # longer as base64
    }
    for code, response in bad.items():
        assert grpc_columns(response)["error_code"] == [code]
        assert grpc_columns(response)["status"][0] >= 400
    assert grpc_columns(infer(photos[0]))["status"] == [200]
    assert {p.pid for p in server.family()} == before
    with pytest.raises(grpc.RpcError, match="Model not found"):
        infer(photos[0], model="nobody")


@pytest.mark.parametrize("form", [v1, v2])
def test_use_calib_off_is_a_parameter_in_json(base, photos, plain, form):
    body = post(base, "/predictions/detector", form(photos[0]) | {"parameters": {"use_calib": False}}).json()
    found = body["predictions"][0]["calibrated"] if form is v1 else columns(body)["calibrated"][0]
    assert not disagreement(found, plain[0]["raw_prob"], PROBABILITY)


def test_use_calib_off_is_a_tensor_over_v2_grpc(infer, photos, plain):
    found = grpc_columns(infer(photos[0], use_calib=False))["calibrated"]
    assert not disagreement(found, [plain[0]["raw_prob"]], PROBABILITY)


def test_no_refusal_shows_a_path_or_a_stack(server, base, photos):
    odd = [
        post(base, "/predictions/nobody", b"x"),
        post(base, "/predictions/detector/9.9", b"x"),
        post(base, "/predictions/%zz", b"x"),
        post(base, "/v2/models/detector/versions/1.0/infer", b"x"),
        post(base, "/predictions/detector", b"x", headers={"Content-Type": "multipart/form-data; boundary=b"}),
        post(base, "/predictions/detector", b"--b\r\nContent-Disposition: x", headers={"Content-Type": "multipart/form-data"}),
        post(base, "/models/detector/invoke", b"{" * 1000),
        httpx.delete(server.record.rest_url, timeout=60, trust_env=False),
        httpx.get(base + "/nothing", timeout=60, trust_env=False),
    ]
    for response in odd:
        assert 400 <= response.status_code < 600
        assert response.json()
        assert not any(
            word in response.text for word in ("Traceback", "\tat ", ".java", ".py", "/work", "/tmp", "/home", "/usr")
        )
