"""What a real server's metrics say about the requests that it was sent."""

from __future__ import annotations

import json
import shutil
import time
from base64 import b64encode

import pytest
from prometheus_client.parser import text_string_to_metric_families

from handlers.metrics import STAGES
from tests.waiting import PATIENCE, awaited

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Page:
    """One reading of the metrics page."""

    def __init__(self, server) -> None:
        families = text_string_to_metric_families(server.probe("metrics")[1])
        self._samples = [sample for family in families for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name with these labels."""
        wanted = labels.items()
        return sum(sample.value for sample in self._samples if sample.name == name and wanted <= sample.labels.items())


def test_one_request_with_good_and_bad_photos_is_one_request_and_its_photos_are_told_apart(server, photos):
    texts = [b64encode(photo).decode() for photo in (*photos[:20], *[b"nothing"] * 5)]
    before = Page(server)
    answer = server.post(content=json.dumps({"instances": texts}), headers={"Content-Type": "application/json"})
    assert [each["ok"] for each in answer.json()["predictions"]] == [True] * 20 + [False] * 5
    requests = before.sum("unmask_requests_total")
    after = awaited(lambda: Page(server), lambda page: page.sum("unmask_requests_total") != requests)

    def added(name: str, **labels: str) -> float:
        return after.sum(name, **labels) - before.sum(name, **labels)

    assert added("unmask_requests_total") == added("unmask_requests_total", kind="predict", code="200") == 1
    assert added("unmask_request_duration_seconds_count") == 1
    assert added("unmask_stage_seconds_sum") < added("unmask_request_duration_seconds_sum") < answer.elapsed.total_seconds()
    assert added("unmask_photos_total") == 25
    assert added("unmask_photos_total", outcome="error") == 5
    assert added("unmask_photo_errors_total") == added("unmask_photo_errors_total", code="unsupported_format") == 5
    assert added("unmask_stage_seconds_count", stage="read") == 1
    assert added("unmask_score_count") == added("unmask_batch_photos_sum") == 20
    assert added("unmask_inferences_total") == added("unmask_batch_photos_count") > 1


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_the_stages_of_a_request_add_up_to_no_more_than_its_client_waited(server, photos, grpc):
    before = Page(server)
    begun = time.monotonic()
    for photo in photos[:10]:
        assert server.predict(photo, grpc=grpc)["ok"]
    waited = time.monotonic() - begun
    after = Page(server)
    for stage in STAGES:
        count = after.sum("unmask_stage_seconds_count", stage=stage) - before.sum("unmask_stage_seconds_count", stage=stage)
        assert count == (0 if stage == "explain" else 10), stage
    inside = after.sum("unmask_stage_seconds_sum") - before.sum("unmask_stage_seconds_sum")
    assert 0 < inside < waited


@pytest.mark.parametrize("grpc", [False, True], ids=["rest", "grpc"])
def test_a_request_keeps_the_id_that_its_client_gave_it(server, photos, grpc):
    client = server.grpc if grpc else server.rest
    assert client.predict(photos[0], request_id="order-4711.a", traceparent=TRACE)["request_id"] == "order-4711.a"
    assert client.predict(photos[0], request_id="no id")["request_id"] != "no id"


def test_the_headers_of_an_answer_repeat_the_requests_id_and_trace(server, photos):
    sent = {"Content-Type": "image/jpeg", "X-Request-Id": "order-4711.a", "traceparent": TRACE}
    headers = server.post(content=photos[0], headers=sent).headers
    assert headers.get_list("x-request-id") == ["order-4711.a"]
    assert headers["traceparent"] == TRACE


def test_a_client_can_not_speak_for_the_frontend(server, photos):
    sent = {"Content-Type": "image/jpeg", "unmask-job": "1 7 false"}
    start, before = time.monotonic(), Page(server).sum("unmask_stage_seconds_sum", stage="queue")
    assert server.post(content=photos[0], headers=sent).json()["ok"]
    added = Page(server).sum("unmask_stage_seconds_sum", stage="queue") - before
    assert added < time.monotonic() - start  # no request of this test waited longer than the test


def test_requests_are_answered_and_counted_when_the_metrics_folder_is_removed(server, photos):
    folder = server.state / "metrics"
    before, sent = Page(server).sum("unmask_photos_total"), 0
    shutil.rmtree(folder)
    deadline = time.monotonic() + PATIENCE
    while len(list(folder.glob("counter_*.db"))) < len(server.workers()) or sent < 10:
        assert server.predict(photos[0], grpc=sent % 2 == 1)["ok"]
        sent += 1
        assert time.monotonic() < deadline
    assert Page(server).sum("unmask_photos_total") == before + sent
