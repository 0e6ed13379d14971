"""Two versions of the model in one server: each by its path, and the default one changed under load."""

from __future__ import annotations

import json
import os
import threading
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest

from detector import Manifest
from detector.scorer import Scorer
from detector.verdict import predicted
from serve.client.client import GrpcClient, RestClient
from tests.serve.conftest import NEW, OLD, WARNING
from tests.serve.running import RunningServer, serve, serve_process


@pytest.fixture(scope="module")
def both(artifacts, newer, tmp_path_factory):
    flags = ("--artifacts", str(newer), "--workers", "1", "--threads", "1")
    running = RunningServer(artifacts, tmp_path_factory.mktemp("both"), *flags)
    try:
        yield running.await_ready()
    finally:
        running.stop()


def promote(server, version):
    return serve("promote", version, "--state", server.state)


def versions(server):
    return json.loads(serve("status", "--state", server.state).stdout)["versions"]


def test_each_version_answers_under_its_own_path_and_the_first_by_default(both, photos, artifacts, newer):
    assert versions(both) == {"default": OLD, "served": [OLD, NEW]}
    assert json.loads(both.probe("readyz")[1])["workers"] == {"ready": 2, "wanted": 2}
    record = both.record
    for asked, version, folder in (("", OLD, artifacts), (OLD, OLD, artifacts), (NEW, NEW, newer)):
        clients = (RestClient(record.rest_url, version=asked), GrpcClient(record.grpc_target, version=asked))
        for client in clients:
            with closing(client):
                answer = client.predict(photos[0])
            assert answer["ok"], answer
            assert answer["model"]["version"] == version
            assert answer["threshold"] == Manifest.load(folder / "manifest.json").threshold


def test_a_photo_in_the_band_is_uncertain_on_every_road(both, photos, artifacts, newer):
    band, scorer = Manifest.load(newer / "manifest.json").uncertain, Scorer(artifacts / "model.onnx", threads=1)
    url, chosen = f"{both.record.rest_url}/{NEW}", photos[:12]
    words = [predicted(scorer.score(photo).calibrated, 0.25, band) for photo in chosen]
    assert set(words) == {"Real", "Uncertain", "Fake"}
    with (
        closing(RestClient(both.record.rest_url, version=NEW)) as rest,
        closing(GrpcClient(both.record.grpc_target, version=NEW)) as grpc,
    ):
        for client in (rest, grpc):
            for explain in (False, True):
                answers = [client.predict(photo, explain=explain) for photo in chosen]
                assert [answer["prediction"] for answer in answers] == words
                assert all(answer["uncertain"] == band.to_list() for answer in answers)
            raw = [client.predict(photo, use_calibrator=False) for photo in chosen]
            assert {answer["prediction"] for answer in raw} == {"Real", "Fake"}
            assert not any("uncertain" in answer for answer in raw)
    encoded = [b64encode(photo).decode() for photo in chosen]
    v1 = httpx.post(url, json={"instances": encoded}).json()
    assert [answer["prediction"] for answer in v1["predictions"]] == words
    tensor = {"name": "images", "shape": [len(chosen)], "datatype": "BYTES", "data": encoded}
    v2 = {output["name"]: output for output in httpx.post(url, json={"inputs": [tensor]}).json()["outputs"]}
    assert v2["prediction"]["data"] == words
    assert v2["uncertain"]["shape"] == [len(chosen), 2]
    assert v2["uncertain"]["data"] == band.to_list() * len(chosen)
    _, counted = both.probe("metrics")
    assert 'unmask_photos_total{outcome="uncertain"}' in counted


def test_what_a_manifest_says_against_its_model_is_told_at_the_start_and_by_readyz_and_status(both):
    models = {OLD: {"warnings": []}, NEW: {"warnings": [WARNING]}}
    assert json.loads(both.probe("readyz")[1])["models"] == models
    assert json.loads(serve("status", "--state", both.state).stdout)["models"] == models
    (line,) = both.events("model_warning")
    assert (line["level"], line["version"], line["code"]) == ("warning", NEW, WARNING["code"])
    assert WARNING["message"] in line["message"]


@pytest.mark.parametrize("client", [RestClient, GrpcClient])
def test_a_version_that_is_not_served_is_not_found(both, photos, client):
    address = both.record.rest_url if client is RestClient else both.record.grpc_target
    with closing(client(address, version="7")) as asked:
        assert asked.predict(photos[0])["error"]["code"] == "model_not_found"
    refused = promote(both, "7")
    assert refused.returncode == 1
    assert refused.stderr == f"error: version 7 is not served here; these are: {OLD}, {NEW} [unknown_version]\n"
    assert versions(both)["default"] == OLD


def test_promotion_under_load_loses_no_request_and_afterwards_only_the_new_version_answers(both, photos):
    answers: list[tuple[float, float, dict]] = []  # when it was sent, when it was answered, and how
    over = threading.Event()

    def keep_asking(grpc: bool) -> None:
        while not over.is_set():
            sent = time.monotonic()
            answer = both.predict(photos[len(answers) % 50], grpc=grpc)
            answers.append((sent, time.monotonic(), answer))

    def wait_for(more: int) -> None:
        enough = len(answers) + more
        while len(answers) < enough:
            assert not any(asking.done() for asking in askers), [asking.exception() for asking in askers if asking.done()]
            time.sleep(0.01)

    with ThreadPoolExecutor(8) as pool:
        askers = [pool.submit(keep_asking, i % 2 == 0) for i in range(8)]
        try:
            steady = [(0.0, OLD)]
            for version, before in ((NEW, OLD), (OLD, NEW)):
                wait_for(150)
                steady.append((time.monotonic(), before))
                done = serve_process("promote", version, "--state", both.state)
                steady.append((time.monotonic(), version))
                assert done.returncode == 0, done.stderr
                assert done.stdout == f"{version} is the default version (before: {before})\n"
            wait_for(150)
        finally:
            over.set()
    assert len(answers) >= 450
    assert all(answer["ok"] for _, _, answer in answers)
    assert {answer["model"]["version"] for _, _, answer in answers} == {OLD, NEW}
    steady.append((time.monotonic(), OLD))
    for (start, version), (end, _) in zip(steady[::2], steady[1::2], strict=True):
        settled = [answer["model"]["version"] for sent, received, answer in answers if start < sent and received < end]
        assert len(settled) > 100
        assert set(settled) == {version}


def test_the_default_version_outlives_its_workers_and_not_the_server(both, photos):
    assert promote(both, NEW).returncode == 0
    again = promote(both, NEW)
    assert (again.returncode, again.stdout) == (0, f"{NEW} is the default version (as before)\n")
    for worker in both.workers():
        worker.kill()
    while both.probe("readyz")[0] == 200:
        time.sleep(0.02)
    both.await_ready()
    assert both.predict(photos[0])["model"]["version"] == NEW
    both.stop()
    gone = promote(both, OLD)
    assert gone.returncode == 1
    assert gone.stderr.endswith("[not_running]\n")


def test_two_folders_of_one_version_are_refused(artifacts, tmp_path):
    variable = {"UNMASK_ARTIFACTS": f"{artifacts}{os.pathsep}{artifacts}"}
    refused = serve_process("start", "--free-ports", "--state", tmp_path, **variable)
    assert refused.returncode == 2
    assert f"both hold version {OLD}" in refused.stderr
    assert "unmask export --version" in refused.stderr
