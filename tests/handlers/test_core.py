"""The handler's core: one answer for each request, and a failure that stays with the request that caused it."""

from __future__ import annotations

import json
import logging
from base64 import b64encode
from dataclasses import replace

import numpy as np
import pytest

from detector.scorer import Scorer
from detector.tolerance import LOGIT, TOLERANCES, disagreement
from handlers.core import Core
from handlers.engine import Scores
from handlers.forms.base import Item
from handlers.requests import MAX_BODY_BYTES
from tests.conftest import encode


@pytest.fixture
def core(onnx_engine) -> Core:
    return Core(onnx_engine)


def item(data: object, key: str = "data", request_id: str = "r", **inputs: object) -> Item:
    return Item({key: data, **inputs}, request_id)


def test_a_batch_is_answered_in_order_with_the_scorers_verdicts(core, photos, artifacts):
    scorer = Scorer(artifacts / "model.onnx", threads=1)
    answers = core.answer([item(p, request_id=str(i)) for i, p in enumerate(photos)])
    for i, (answer, photo) in enumerate(zip(answers, photos, strict=True)):
        expected = scorer.score(photo).to_dict()
        assert answer.status == 200
        assert answer.body["request_id"] == str(i)
        assert set(answer.body) == set(expected) | {"request_id"}
        for key in ("ok", "prediction", "used_calibrator", "threshold", "model", "model_device", "cropped"):
            assert answer.body[key] == expected[key]
        for name in ("logit", "calibrated"):
            assert not disagreement(answer.body[name], expected[name], TOLERANCES[name])


def test_bad_requests_fail_alone_with_their_own_code_and_status(core, photos):
    wide = encode(np.zeros((40, 40, 3), np.uint8))
    wide = wide[:16] + (60_000).to_bytes(4, "big") * 2 + wide[24:]
    batch = {
        "good": item(photos[0]),
        "image_too_large": item(wide),
        "truncated_image": item(photos[1][: len(photos[1]) // 2]),
        "unsupported_format": item(b"GIF89a" + bytes(64)),
        "empty_image": item(b""),
        "missing_image": item(photos[1], key="photo"),
        "body_too_large": item(bytes(MAX_BODY_BYTES + 1)),
        "bad_parameter": item(photos[1], use_calib=b"perhaps"),
        "good too": item(photos[2], key="body"),
    }
    statuses = [200, 413, 422, 415, 400, 400, 413, 400, 200]
    answers = core.answer(list(batch.values()))
    for name, status, answer in zip(batch, statuses, answers, strict=True):
        assert answer.status == status
        assert answer.body["ok"] is (status == 200)
        assert answer.body["request_id"] == "r"
        if status != 200:
            assert answer.body["error"]["code"] == name
            assert answer.body["status"] == status
            assert answer.body["error"]["message"]
    alone = core.answer([batch["good"], batch["good too"]])
    found = [answers[0].body["logit"], answers[-1].body["logit"]]
    assert not disagreement(found, [a.body["logit"] for a in alone], LOGIT)


def test_a_body_of_exactly_the_limit_is_still_looked_at(core):
    assert core.answer([item(bytes(MAX_BODY_BYTES))])[0].body["error"]["code"] == "unsupported_format"


@pytest.mark.parametrize("value", [b"0", bytearray(b"0"), "0", b"false", b" No "])
def test_use_calib_off_gives_the_raw_probability(core, photos, value):
    body = core.answer([item(photos[0], use_calib=value)])[0].body
    assert body["used_calibrator"] is False
    assert body["calibrated"] == body["raw_prob"]


@pytest.mark.parametrize("inputs", [{}, {"use_calib": b"1"}, {"use_calib": "true"}])
def test_the_calibrated_probability_is_the_default(core, photos, inputs):
    assert core.answer([item(photos[0], **inputs)])[0].body["used_calibrator"] is True


def test_bytes_text_and_nonsense_as_a_body_never_raise(core):
    codes = [core.answer([item(value)])[0].body["error"]["code"] for value in (bytearray(b"x"), "text", {"a": 1}, None, 7)]
    assert codes == ["unsupported_format", "unsupported_format", "missing_image", "missing_image", "missing_image"]


class Failing:
    """An engine that runs out of memory on batches above one photo, and loses its senses on dark ones."""

    def __init__(self, engine) -> None:
        self.manifest, self.device, self._engine = engine.manifest, engine.device, engine

    def run(self, images, *, heatmap=False) -> Scores:
        if len(images) > 1:
            raise RuntimeError("CUDA out of memory in /home/somebody/secret.py")
        scores = self._engine.run(images, heatmap=heatmap)
        return scores._replace(logit=np.full_like(scores.logit, np.nan)) if images.max() < 8 else scores


def test_a_failure_of_ours_is_a_500_that_tells_nothing_and_a_log_that_tells_all(onnx_engine, photos, caplog):
    core = Core(Failing(onnx_engine))
    with caplog.at_level(logging.ERROR, "unmask"):
        answers = core.answer([item(photos[0], request_id="first"), item(photos[1]), item(b"no photo")])
    assert [a.status for a in answers] == [500, 500, 415]
    assert answers[0].body["error"]["code"] == "internal_error"
    assert not any(word in json.dumps(answers[0].body) for word in ("CUDA", "secret", "Traceback", "RuntimeError"))
    assert "first" in caplog.text
    assert "secret.py" in caplog.text
    assert core.answer([item(photos[0])])[0].status == 200


def test_no_label_is_made_of_nan(onnx_engine):
    dark = encode(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3) // 64)
    answer = Core(Failing(onnx_engine)).answer([item(dark)])[0]
    assert answer.status == 500
    assert answer.body["error"]["code"] == "model_output_error"
    json.dumps(answer.body, allow_nan=False)


def test_an_empty_batch_is_no_work(core):
    assert core.answer([]) == []


class Watching:
    """An engine that notes how many photos each run had, and whether for heatmaps."""

    def __init__(self, engine) -> None:
        self.manifest, self.device, self._engine, self.runs = engine.manifest, engine.device, engine, []

    def run(self, images, *, heatmap=False) -> Scores:
        self.runs.append((len(images), heatmap))
        return self._engine.run(images, heatmap=heatmap)


def listed(*photos: bytes | str) -> Item:
    texts = [p if isinstance(p, str) else b64encode(p).decode() for p in photos]
    return Item({"body": json.dumps({"instances": texts}).encode()}, "r")


def tensors(*photos: bytes, grpc: bool = False, **more: object) -> Item:
    tensor = {"name": "images", "shape": [len(photos)], "datatype": "BYTES", "data": [b64encode(p).decode() for p in photos]}
    return Item({"body": json.dumps({"inputs": [tensor], **more}).encode()}, "r", tensors=grpc)


def test_only_those_who_asked_are_explained_and_the_others_get_what_they_always_get(onnx_engine, photos):
    plain = [item(p) for p in photos[:6]]
    asking = [replace(i, explain=n % 2 == 1) for n, i in enumerate(plain)]
    engine = Watching(onnx_engine)
    expected, mixed = Core(engine).answer(plain), Core(engine).answer(asking)
    assert engine.runs == [(6, False), (6, True)]
    for n, (answer, before) in enumerate(zip(mixed, expected, strict=True)):
        explained = answer.body.pop("explanation", None)
        assert (explained is not None) is (n % 2 == 1)
        assert answer == before


def test_photos_of_several_requests_share_runs_of_at_most_the_batch_size(onnx_engine, photos):
    engine = Watching(onnx_engine)
    core = Core(engine, batch_size=4)
    answers = core.answer([listed(*photos[:5]), item(photos[5]), listed(photos[6], "nonsense!", photos[7])])
    assert engine.runs == [(4, False), (4, False)]
    alone = [core.answer([item(p)])[0].body["logit"] for p in photos[:8]]
    found = answers[0].body["predictions"], [answers[1].body], answers[2].body["predictions"]
    assert [len(bodies) for bodies in found] == [5, 1, 3]
    logits = [body["logit"] for bodies in found for body in bodies if body["ok"]]
    assert not disagreement(logits, alone, LOGIT)
    assert found[2][1]["error"]["code"] == "invalid_base64"
    assert [a.status for a in answers] == [200, 200, 200]


def test_a_request_none_of_whose_photos_can_be_scored_has_the_first_ones_status(core, photos):
    answer = core.answer([listed(b"nothing", photos[0][:2000])])[0]
    assert answer.status == 415
    assert [p["error"]["code"] for p in answer.body["predictions"]] == ["unsupported_format", "truncated_image"]


@pytest.mark.parametrize("grpc", [False, True])
def test_tensors_have_a_row_for_each_photo_and_a_hole_for_one_that_failed(core, photos, grpc):
    answer = core.answer([tensors(photos[0], b"nothing", photos[1], id="mine", parameters={"explain": True}, grpc=grpc)])[0]
    assert answer.status == 200
    body = answer.body
    assert (body["model_name"], body["id"]) == (core.answer([item(photos[0])])[0].body["model"]["name"], "mine")
    found = {output["name"]: output for output in body["outputs"]}
    assert {name for name, o in found.items() if o["datatype"] == "FP32"} == {
        "logit",
        "raw_prob",
        "calibrated",
        "confidence",
        "cropped",
        "heatmap",
    }
    for output in found.values():
        assert len(output["data"]) == np.prod(output["shape"])
        assert output["shape"][0] == 3
    plain = [a.body for a in core.answer([item(photos[0]), item(photos[1])])]
    assert [found["prediction"]["data"][row] for row in (0, 2)] == [p["prediction"] for p in plain]
    assert [found["cropped"]["data"][row] for row in (0, 2)] == [p["cropped"] for p in plain]
    for name in ("logit", "raw_prob", "calibrated", "confidence"):
        assert not disagreement([found[name]["data"][row] for row in (0, 2)], [p[name] for p in plain], TOLERANCES[name])
    assert found["status"]["data"] == [200, 415, 200]
    assert found["error_code"]["data"] == ["", "unsupported_format", ""]
    holes = [found["logit"]["data"][1], *found["heatmap"]["data"][16:32]]
    assert all(np.isnan(h) if grpc else h is None for h in holes)
    assert found["overlay_png"]["data"][1] == ""


def test_whatever_happens_the_answer_to_a_model_infer_call_has_the_form_that_torchserve_can_read(onnx_engine, photos):
    core = Core(Failing(onnx_engine), max_body_bytes=60_000)
    calls = [Item({}, "r", tensors=True), Item({"body": bytes(60_001)}, "r", tensors=True), tensors(b"x", grpc=True, id=7)]
    calls += [tensors(photos[0], photos[1], grpc=True), Item({"body": b"{"}, "r", tensors=True)]
    for answer in core.answer(calls):
        assert all(isinstance(answer.body[key], str) for key in ("id", "model_name", "model_version"))
        assert answer.body["error"]
        assert all(isinstance(v, float) for o in answer.body["outputs"] if o["datatype"] == "FP32" for v in o["data"])


def test_an_error_in_the_log_names_the_request_and_its_trace(onnx_engine, photos, caplog):
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with caplog.at_level(logging.ERROR, "unmask"):
        Core(Failing(onnx_engine)).answer([Item({"data": photos[0]}, "mine", trace=trace), item(photos[1])])
    assert f"request mine, traceparent {trace}" in caplog.text
