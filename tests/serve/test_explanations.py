"""Explanations on a real TorchServe: by path, by switch, over REST and gRPC, among predictions that share the batch."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from detector import Manifest, decode_image
from detector.scorer import Scorer
from detector.tolerance import HEATMAP_IN_JSON, LOGIT, disagreement
from serve.client import grpc_stubs

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def truth(artifacts, photos):
    """The graph's own heatmaps."""
    spec = Manifest.load(artifacts / "manifest.json").image_spec
    return Scorer(artifacts / "model.onnx", threads=1).heatmaps(np.stack([decode_image(p, spec) for p in photos[:8]]))


@pytest.fixture(scope="module")
def base(server):
    return server.record.rest_url.removesuffix("/predictions/detector")


def sent(base, path, content, **headers) -> httpx.Response:
    return httpx.post(
        base + path, content=content, headers={"Content-Type": "image/jpeg"} | headers, timeout=60, trust_env=False
    )


def assert_explains(body, heat, size=128):
    assert body["ok"], body
    explained = body["explanation"]
    assert not disagreement(explained["heatmap"], heat, HEATMAP_IN_JSON)
    assert explained["range"] == [np.min(explained["heatmap"]), np.max(explained["heatmap"])]
    picture = Image.open(BytesIO(b64decode(explained["overlay_png"], validate=True)))
    picture.load()
    assert (picture.format, picture.size) == ("PNG", (size, size))


@pytest.mark.parametrize(
    "path",
    ["/explanations/detector", "/explanations/detector/1.0", "/predictions/detector?explain=1", "/v1/models/detector:explain"],
)
def test_an_explanation_has_the_verdict_the_heatmap_and_a_picture(server, base, photos, truth, path):
    response = sent(base, path, photos[0])
    assert response.status_code == 200
    assert_explains(response.json(), truth[0])
    body, plain = response.json(), server.predict(photos[0])
    for each in (body, plain):
        each.pop("request_id"), each.pop("explanation", None)
    assert body == plain


def test_over_grpc_it_is_an_input(server, photos, truth):
    messages, services = grpc_stubs.load()
    with grpc.insecure_channel(server.record.grpc_target) as channel:
        request = messages.PredictionsRequest(model_name="detector", input={"data": photos[0], "explain": b"1"})
        body = json.loads(services.InferenceAPIsServiceStub(channel).Predictions(request, timeout=60).prediction)
    assert_explains(body, truth[0])


def test_torchscript_explains_as_well(torchscript_server, photos, truth):
    base = torchscript_server.record.rest_url.removesuffix("/predictions/detector")
    assert_explains(sent(base, "/explanations/detector", photos[0]).json(), truth[0])


def test_predictions_and_explanations_share_batches_and_each_gets_what_it_asked_for(server, base, photos, truth):
    plain = [server.predict(p) for p in photos[:8]]
    before = server.metric("unmask_batch_photos_count"), server.metric('unmask_batch_photos_bucket{le="1.0"}')

    def one(n):
        path = "/explanations/detector" if n % 3 == 0 else "/predictions/detector"
        return sent(base, path, b"nothing" if n % 16 == 0 else photos[n % 8])

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(one, range(96)))
    for n, response in enumerate(answers):
        body = response.json()
        if n % 16 == 0:
            assert (response.status_code, body["error"]["code"]) == (415, "unsupported_format")
            continue
        assert not disagreement(body["logit"], plain[n % 8]["logit"], LOGIT)
        if n % 3 == 0:
            assert_explains(body, truth[n % 8])
        else:
            assert "explanation" not in body
    after = server.metric("unmask_batch_photos_count"), server.metric('unmask_batch_photos_bucket{le="1.0"}')
    assert after[0] - before[0] > after[1] - before[1], "some of these must have shared a batch"


def test_several_photos_are_explained_each(base, photos, truth):
    document = json.dumps({"instances": [b64encode(photos[0]).decode(), "AAAA", b64encode(photos[1]).decode()]}).encode()
    first, second, third = sent(base, "/explanations/detector", document).json()["predictions"]
    assert_explains(first, truth[0])
    assert not second["ok"]
    assert_explains(third, truth[1])


def test_as_tensors_the_heatmap_is_one_too(base, photos, truth):
    tensor = {"name": "images", "shape": [2], "datatype": "BYTES", "data": [b64encode(p).decode() for p in photos[:2]]}
    body = sent(base, "/v2/models/detector/explain", json.dumps({"inputs": [tensor]}).encode()).json()
    outputs = {output["name"]: output for output in body["outputs"]}
    heat = np.reshape(outputs["heatmap"]["data"], outputs["heatmap"]["shape"])
    assert not disagreement(heat, truth[:2], HEATMAP_IN_JSON)
    assert all(Image.open(BytesIO(b64decode(png))).size == (128, 128) for png in outputs["overlay_png"]["data"])


@pytest.mark.parametrize("path", ["/predictions/detector", "/explanations/detector"])
def test_a_valid_traceparent_comes_back_with_verdicts_and_failures(base, photos, path):
    for content in (photos[0], b"nothing"):
        response = sent(base, path, content, traceparent=VALID)
        assert response.headers["traceparent"] == VALID
        assert response.headers["x-request-id"] == response.json()["request_id"]
        assert "traceparent" not in sent(base, path, content, traceparent=VALID + "0").headers
