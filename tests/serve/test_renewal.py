"""A worker that grows past its bound begins anew in its own place, and nobody who asks it meanwhile notices."""

from __future__ import annotations

import base64
import mmap
from concurrent.futures import ThreadPoolExecutor

from detector.scorer import Scorer
from handlers.renewal import resident_bytes

ROUNDS = 3


def test_a_worker_that_grows_begins_anew_and_no_request_is_lost(artifacts, start, photos, slow_photo):
    server = start(artifacts, "--worker-growth", "1").await_ready()
    (worker,) = server.workers()
    begun = worker.create_time()

    def ask(number: int) -> tuple[int, dict]:
        if number % 8 == 0:
            server.predict(slow_photo)  # tens of megabytes to decode
        if number % 8 == 4:
            body = server.post(path="", json={"instances": [{"b64": base64.b64encode(slow_photo).decode()}] * 12}).json()
            assert all(prediction["ok"] for prediction in body["predictions"])
        photo = number % len(photos)
        return photo, server.predict(photos[photo], grpc=number % 2 == 1)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(8 * ROUNDS)))
    scorer = Scorer(artifacts / "model.onnx", threads=1)
    logits = [scorer.score(photo).logit for photo in photos]
    assert all(body["ok"] and abs(body["logit"] - logits[photo]) < 1e-3 for photo, body in answers)
    assert server.metric("unmask_worker_renewals_total") >= 2
    assert server.metric("unmask_worker_restarts_total") == 0
    assert server.probe("readyz")[0] == 200
    assert [(p.pid, p.create_time()) for p in server.workers()] == [(worker.pid, begun)]
    assert server.metric("unmask_request_seconds_count") >= len(answers), "counts of before the renewal are kept"
    assert "begins anew" in (server.state / "logs" / "worker.log").read_text()


def test_what_a_process_holds_is_known():
    before = resident_bytes()
    with mmap.mmap(-1, 50_000_000) as held:  # memory of its own, which no allocator had before
        held.write(b"x" * len(held))
        assert 40_000_000 < resident_bytes() - before < 120_000_000
