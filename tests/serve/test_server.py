"""Requests to a real TorchServe, over REST and gRPC."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from detector.scorer import Scorer
from detector.tolerance import PROBABILITY, TOLERANCES, disagreement
from detector.worker_settings import WorkerSettings
from serve.torchserve.render import BODY_MARGIN
from tests.conftest import encode


@pytest.fixture(scope="module")
def expected(artifacts, photos):
    scorer = Scorer(artifacts / "model.onnx", threads=1)
    return [scorer.score(p).to_dict() for p in photos]


@pytest.fixture(scope="module")
def bad(photos) -> dict[str, bytes]:
    wide = encode(np.zeros((40, 40, 3), np.uint8))
    return {
        "truncated_image": photos[0][: len(photos[0]) // 2],
        "unsupported_format": b"%PDF-1.7 and so on",
        "empty_image": b"",
        "image_too_large": wide[:16] + (60_000).to_bytes(4, "big") * 2 + wide[24:],
        "body_too_large": bytes(WorkerSettings.max_body_bytes + 1),
    }


STATUS = {
    "truncated_image": 422,
    "unsupported_format": 415,
    "empty_image": 400,
    "image_too_large": 413,
    "body_too_large": 413,
}


def assert_same(answers, expected):
    for answer, truth in zip(answers, expected, strict=True):
        assert answer["ok"], answer
        for name in ("logit", "raw_prob", "calibrated"):
            assert not disagreement(answer[name], truth[name], TOLERANCES[name])
        for key in ("prediction", "used_calibrator", "threshold", "model", "model_device", "cropped"):
            assert answer[key] == truth[key]
        assert answer["request_id"]


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_photos_get_the_local_scorers_verdicts(server, photos, expected, grpc):
    assert_same([server.predict(p, grpc=grpc) for p in photos], expected)


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_the_torchscript_archive_gives_the_same_verdicts(torchscript_server, photos, expected, grpc):
    assert_same([torchscript_server.predict(p, grpc=grpc) for p in photos], expected)


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_bad_photos_among_many_fail_alone_with_their_code(server, photos, expected, bad, grpc):
    before = server.metric("unmask_batch_photos_count"), server.metric('unmask_batch_photos_bucket{le="1.0"}')
    codes = list(bad)[:4]
    sent = [bad[codes[(i // 3) % 4]] if i % 3 == 0 else photos[i] for i in range(48)]
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda data: server.predict(data, grpc=grpc), sent))
    assert_same([a for i, a in enumerate(answers) if i % 3], [expected[i] for i in range(48) if i % 3])
    for i in range(0, 48, 3):
        code = codes[(i // 3) % 4]
        assert answers[i]["error"]["code"] == code
        assert answers[i]["status"] == STATUS[code]
    after = server.metric("unmask_batch_photos_count"), server.metric('unmask_batch_photos_bucket{le="1.0"}')
    assert after[0] - before[0] > after[1] - before[1], "some of these must have shared a batch"


def test_over_rest_the_http_status_is_the_requests_own(server, bad):
    for code, data in bad.items():
        response = server.post(content=data, headers={"Content-Type": "image/jpeg"})
        assert response.status_code == STATUS[code]
        assert response.headers["content-type"] == "application/json"
        assert response.json()["error"]["code"] == code


def test_a_body_over_the_limit_is_refused_with_a_reason_over_grpc_too(server, bad):
    answer = server.predict(bad["body_too_large"], grpc=True)
    assert answer["error"]["code"] == "body_too_large"
    assert str(WorkerSettings.max_body_bytes) in answer["error"]["message"]


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_a_body_over_the_frontends_own_limit_is_413_as_well(server, grpc):
    assert (
        server.predict(bytes(WorkerSettings.max_body_bytes + BODY_MARGIN + 1), grpc=grpc)["error"]["code"] == "body_too_large"
    )
    assert server.predict(b"still there", grpc=grpc)["status"] == 415


@pytest.mark.parametrize("path", ["?use_calib=0", "/1.0?use_calib=false"])
def test_use_calib_off_in_the_query_gives_the_raw_probability(server, photos, expected, path):
    body = server.post(path, content=photos[0], headers={"Content-Type": "image/jpeg"}).json()
    assert body["used_calibrator"] is False
    assert body["calibrated"] == body["raw_prob"]
    assert not disagreement(body["raw_prob"], expected[0]["raw_prob"], PROBABILITY)


def test_use_calib_off_as_a_grpc_input_or_a_form_field_gives_the_raw_probability(server, photos, expected):
    form = server.post(files={"data": photos[0]}, data={"use_calib": "0"}).json()
    for body in (server.predict(photos[0], grpc=True, use_calibrator=False), form):
        assert body["used_calibrator"] is False
        assert not disagreement(body["calibrated"], expected[0]["raw_prob"], PROBABILITY)


def test_a_multipart_upload_is_read_from_the_field_data(server, photos, expected):
    assert_same([server.post(files={"data": ("face.jpg", photos[3], "image/jpeg")}).json()], [expected[3]])
    refused = server.post(files={"photo": photos[3]})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "missing_image"


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "image/png", "application/octet-stream"])
def test_the_declared_content_type_does_not_change_what_the_bytes_are(server, photos, expected, kind):
    assert_same([server.post(content=photos[5], headers={"Content-Type": kind}).json()], [expected[5]])


def test_each_request_has_an_id_of_its_own_that_the_header_repeats(server, photos):
    responses = [server.post(content=photos[0], headers={"Content-Type": "image/jpeg"}) for _ in range(2)]
    ids = [r.json()["request_id"] for r in responses]
    assert len(set(ids)) == 2
    assert ids == [r.headers["x-request-id"] for r in responses]


def test_the_probes_and_the_metrics_tell_what_is_going_on(server, photos):
    assert server.probe("livez")[0] == 200
    status, body = server.probe("readyz")
    assert status == 200
    assert json.loads(body)["workers"] == {"ready": 2, "wanted": 2}
    assert server.probe("else")[0] == 404
    before = server.metric('unmask_stage_seconds_count{stage="read"}')
    server.predict(photos[0])
    assert server.metric('unmask_stage_seconds_count{stage="read"}') == before + 1
    assert server.metric("unmask_ready") == 1
    assert server.metric("unmask_workers_ready") == 2
    assert server.metric('unmask_queue_limit{version="1.0"}') == 100
    assert server.metric('unmask_worker_restarts_total{reason="killed"}') == 0


def test_no_model_can_be_registered_and_no_url_is_fetched(server):
    management = server.record.management_url
    for url in ("http://127.0.0.1:1/evil.mar", "file:///etc/hostname", "detector-onnx-1.mar"):
        assert httpx.post(f"{management}/models", params={"url": url}, trust_env=False).status_code >= 400
    models = httpx.get(f"{management}/models", trust_env=False).json()["models"]
    assert [m["modelName"] for m in models] == ["detector"]


def test_an_onnx_worker_has_no_torch_in_it_and_tells_nobody_anything(server):
    workers = server.workers()
    assert len(workers) == 2
    for worker in workers:
        assert not any("libtorch" in m.path for m in worker.memory_maps())
        assert not any("onnxruntime" in f.path for f in worker.open_files()), "ONNX Runtime gathers usage events"
        assert worker.net_connections("inet") == []
