"""What the handler reports to Prometheus, summed over processes as the supervisor sums it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from detector.manifest import Manifest
from handlers.errors import answered_errors

WORKER = """
import base64, json, pathlib, shutil, sys
from handlers.core import Core
from handlers.engine import load_engine
from handlers.forms.base import Item
from handlers.metrics import open_metrics
from handlers.records import RequestRecords
from handlers.telemetry import Telemetry

archive, photo, counting, steps = *map(pathlib.Path, sys.argv[1:4]), sys.argv[4]
engine = load_engine(archive, threads=1)
core = Core(engine, Telemetry(open_metrics(engine.manifest), RequestRecords(), counting=counting), batch_size=4)
photo, folder = photo.read_bytes(), counting.parent / "metrics"
good, bad = base64.b64encode(photo).decode(), base64.b64encode(b"nothing").decode()
many = json.dumps({"instances": [*[good] * 20, *[bad] * 5]}).encode()
exec(steps)
"""


@pytest.fixture
def worked(archives, photo_files, tmp_path) -> Callable[[str, int], Callable[..., float | None]]:
    """Run Python lines in workers of their own, and read the samples that they leave."""
    (tmp_path / "metrics").mkdir()

    def work(steps: str, times: int = 1, counting: bool = True) -> Callable[..., float | None]:
        if counting:
            (tmp_path / "counting").touch()
        for _ in range(times):
            command = [sys.executable, "-c", WORKER, archives["onnx"], photo_files[0], tmp_path / "counting", steps]
            environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics")}
            subprocess.run(list(map(str, command)), env=environment, check=True)
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(tmp_path / "metrics"))
        return registry.get_sample_value

    return work


def test_photos_are_counted_and_not_requests(worked):
    samples = worked("core.answer([Item({'body': many})])", 2)
    outcomes = [samples("unmask_photos_total", {"outcome": outcome}) for outcome in ("real", "fake", "error")]
    assert outcomes[2] == 2 * 5
    assert sorted(outcomes[:2]) == [0, 2 * 20]
    assert samples("unmask_photo_errors_total", {"code": "unsupported_format"}) == 2 * 5
    assert samples("unmask_stage_seconds_count", {"stage": "decode"}) == 2
    assert samples("unmask_inferences_total") == 2 * 5
    assert samples("unmask_batch_photos_count") == 2 * 5
    assert samples("unmask_batch_photos_sum") == 2 * 20
    assert samples("unmask_requests_in_progress") == 0


def test_stages_are_those_of_each_request_and_all_labels_are_there_from_the_start(worked, archives):
    start = time.monotonic()
    samples = worked(
        """
import time
queued = time.monotonic_ns() - 250_000_000
core.answer([Item({"data": photo}, queued=queued), Item({"data": photo}), Item({"data": b"nothing"})])
core.answer([Item({"data": b"nothing"}, queued=time.monotonic_ns() + 10**12)])
core.answer([Item({"data": photo}, closed=True)])
core.answer([Item({"data": photo}, explain=True)])
"""
    )
    counts = {
        stage: samples("unmask_stage_seconds_count", {"stage": stage})
        for stage in ("queue", "read", "decode", "inference", "postprocess", "explain")
    }
    assert counts == {"queue": 1, "read": 5, "decode": 5, "inference": 4, "postprocess": 4, "explain": 1}
    assert 0.25 <= samples("unmask_stage_seconds_sum", {"stage": "queue"}) < 0.25 + time.monotonic() - start
    found = {error.code: samples("unmask_photo_errors_total", {"code": error.code}) for error in answered_errors()}
    assert found.pop("unsupported_format") == 2
    assert found.pop("client_closed_request") == 1
    assert set(found.values()) == {0}
    version = Manifest.load(archives["onnx"] / "manifest.json").model.version
    assert samples("unmask_score_count", {"version": version}) == 3


def test_scores_fall_into_the_bins_of_the_manifests_reference(worked, archives):
    reference = Manifest.load(archives["onnx"] / "manifest.json").reference_scores
    edges = reference["edges"] if reference else [k / 20 for k in range(21)]
    samples = worked("core._telemetry._metrics.observe(stages={}, requests=0, scores=[0.0, 0.05, 0.049, 1.0])")
    counts = [samples("unmask_score_bucket", {"version": "1.0", "le": str(float(edge))}) for edge in edges]
    import numpy as np

    expected = np.histogram([0.0, 0.05, 0.049, 1.0], edges)[0]
    assert np.diff(counts).tolist() == expected.tolist()
    assert counts[0] == 0


def test_nothing_is_counted_before_the_file_is_there(worked):
    step = "core.answer([Item({'data': photo})]); counting.touch(); core.answer([Item({'data': photo})] * 2)"
    samples = worked(step, counting=False)
    assert samples("unmask_stage_seconds_count", {"stage": "decode"}) == 2
    assert samples("unmask_inferences_total") == 1


def test_requests_are_answered_and_counted_again_when_the_folder_is_wiped(worked, tmp_path):
    samples = worked(
        """
core.answer([Item({"data": photo})])
shutil.rmtree(folder)
folder.write_text("in the way")
assert [core.answer([Item({"data": photo})])[0].status for _ in range(2)] == [200, 200]
folder.unlink()
assert core.answer([Item({"data": photo})] * 3)[0].status == 200
for path in folder.iterdir():
    path.unlink()
assert core.answer([Item({"data": photo})])[0].status == 200
"""
    )
    assert samples("unmask_stage_seconds_count", {"stage": "decode"}) == 1
    assert samples("unmask_photos_total", {"outcome": "error"}) == 0
    assert {path.stat().st_size for path in (tmp_path / "metrics").iterdir()} == {1 << 17}
