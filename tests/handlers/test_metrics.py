"""What the handler reports to Prometheus, summed over processes as the supervisor sums it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

WORKER = """
import sys, pathlib
from handlers.core import Core
from handlers.engine import load_engine
from handlers.metrics import open_metrics
from handlers.forms.base import Item
core = Core(load_engine(pathlib.Path(sys.argv[1]), threads=1), open_metrics())
photo = pathlib.Path(sys.argv[2]).read_bytes()
core.answer([Item({"data": photo}), Item({"data": b"nothing"}), Item({"data": photo})])
core.answer([Item({"body": photo})])
"""


@pytest.fixture(scope="module")
def samples(archives, photo_files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("metrics")
    for _ in range(2):
        command = [sys.executable, "-c", WORKER, str(archives["onnx"]), str(photo_files[0])]
        subprocess.run(command, env={"PROMETHEUS_MULTIPROC_DIR": str(folder)}, check=True)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return registry.get_sample_value


def test_requests_batches_and_stages_are_counted_over_all_workers(samples):
    assert samples("unmask_request_seconds_count") == 8
    assert samples("unmask_batch_size_count") == 4
    assert samples("unmask_batch_size_sum") == 8
    assert samples("unmask_batch_size_bucket", {"le": "2.0"}) == 2
    assert samples("unmask_stage_seconds_count", {"stage": "decode"}) == 8
    assert samples("unmask_stage_seconds_count", {"stage": "inference"}) == 4
    assert samples("unmask_stage_seconds_count", {"stage": "postprocess"}) == 4


def test_times_are_seconds_and_stages_fit_into_the_request(samples):
    request = samples("unmask_request_seconds_sum")
    assert 0 < samples("unmask_stage_seconds_sum", {"stage": "inference"}) < request < 60


def test_verdicts_and_errors_are_counted_by_kind(samples):
    verdicts = [samples("unmask_verdicts_total", {"prediction": label}) or 0 for label in ("Real", "Fake")]
    assert sorted(verdicts) == [0, 6]
    assert samples("unmask_errors_total", {"code": "unsupported_format"}) == 2


def test_nothing_is_in_progress_at_the_end(samples):
    assert samples("unmask_requests_in_progress") == 0
