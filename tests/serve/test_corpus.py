"""Two thousand mutated photos: each is decoded or refused with its reason, and a server takes them all at once."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import psutil
import pytest

from detector.scorer import Scorer
from detector.tolerance import PROBABILITY, disagreement
from tests import mutated
from tests.serve.running import ROOT, RunningServer
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.serve]

STATUS = {
    "empty_image": 400,
    "unsupported_format": 415,
    "image_too_large": 413,
    "image_too_small": 422,
    "image_uniform": 422,
    "zero_sized_image": 422,
    "truncated_image": 422,
    "corrupt_image": 422,
}
BOMBS = {"scan bomb", "segment bomb", "text bomb"}


@pytest.fixture(scope="module")
def mutants() -> list[mutated.Mutant]:
    return mutated.corpus(2000)


@dataclass(frozen=True)
class Decoded:
    """What `decode_image` alone makes of each mutant: an error's code or nothing, and the pixels of those without one."""

    codes: list[str]
    seconds: list[float]
    largest_seconds: float  # that an honest photo of 49 megapixels takes
    pixels: np.ndarray
    log: str


@pytest.fixture(scope="module")
def decoded(tmp_path_factory) -> Decoded:
    """In a process of its own, whose memory is bounded."""
    out = tmp_path_factory.mktemp("corpus") / "decoded.npz"
    command = [sys.executable, "-m", "tests.mutated", out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=5 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(out) as found:
        (_, *codes), (largest, *seconds), pixels = found["codes"].tolist(), found["seconds"].tolist(), found["pixels"]
    return Decoded(codes, seconds, largest, pixels, done.stderr)


def test_each_is_decoded_or_refused_with_its_reason_in_bounded_time_and_memory(mutants, decoded):
    assert len(mutants) == len(decoded.codes) == 2000
    assert {code for code in decoded.codes if code} == set(STATUS), "another error escaped, or one never came"
    kinds = Counter(mutant.kind for mutant in mutants)
    assert min(kinds.values()) >= 5
    assert decoded.log == "", "a photo must not write to a server's log"
    # Nothing takes much longer than an honest photo of 49 megapixels, and what is refused as a bomb far less.
    took = dict.fromkeys(kinds, 0.0)
    for mutant, seconds in zip(mutants, decoded.seconds, strict=True):
        took[mutant.kind] = max(took[mutant.kind], seconds)
    assert max(took.values()) < 8 * decoded.largest_seconds
    assert max(took[kind] for kind in BOMBS) < decoded.largest_seconds


def test_a_server_answers_every_one_as_it_is_and_its_workers_live(server: RunningServer, artifacts, mutants, decoded):
    def workers() -> set[int]:
        return {p.pid for p in server.workers()}

    def batches() -> tuple[float, float]:
        return server.metric("unmask_batch_photos_count"), server.metric('unmask_batch_photos_bucket{le="1.0"}')

    before, alone = workers(), batches()
    order = np.random.default_rng(1).permutation(len(mutants))
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: server.predict(mutants[n].data, grpc=n % 5 == 0), order))
    scorer = Scorer(artifacts / "model.onnx", threads=1)
    verdicts = iter([v for some in np.array_split(decoded.pixels, 40) for v in scorer.score_images(list(some))])
    expected = [(code, None if code else next(verdicts)) for code in decoded.codes]
    wrong: Counter[tuple[str, ...]] = Counter()
    for n, answer in zip(order, answers, strict=True):
        code, verdict = expected[n]
        if verdict:
            right = answer["ok"] and answer["prediction"] == verdict.prediction
            right = right and not disagreement(answer["calibrated"], verdict.calibrated, PROBABILITY)
        else:
            right = answer.get("error", {}).get("code") == code and answer["status"] == STATUS[code]
        if not right:
            wrong[mutants[n].kind, str(answer)[:300], code or str(verdict)] += 1
    assert not wrong, wrong.most_common(5)
    assert len(decoded.pixels) > 500, "good ones travel among them"
    shared = [now - then for now, then in zip(batches(), alone, strict=True)]
    assert shared[0] > 1.2 * shared[1], "many must have shared a batch"
    assert workers() == before
    assert server.metric("unmask_worker_restarts_total") == 0
    for pid in before:
        assert psutil.Process(pid).memory_info().rss < mutated.MEMORY
