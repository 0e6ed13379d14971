"""The line that a worker writes on each request: into the supervisor's pipe, whole or not at all, and never waiting."""

from __future__ import annotations

import json
import os
import time
from base64 import b64encode
from pathlib import Path

import pytest

from handlers.core import Core
from handlers.forms.base import Item
from handlers.metrics import STAGES
from handlers.records import MAX_BYTES, RequestRecords
from handlers.telemetry import Telemetry

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def pipe(tmp_path: Path):
    """A named pipe that is held open for reading, as the supervisor holds it."""
    os.mkfifo(tmp_path / "requests")
    reader = os.open(tmp_path / "requests", os.O_RDWR | os.O_NONBLOCK)
    yield tmp_path / "requests", reader
    os.close(reader)


def lines(reader: int) -> list[dict]:
    found = b""
    while True:
        try:
            found += os.read(reader, 1 << 20)
        except BlockingIOError:
            return [json.loads(line) for line in found.splitlines()]


def test_each_request_of_a_batch_has_a_line_with_what_it_was_and_where_its_time_went(onnx_engine, photos, pipe, tmp_path):
    path, reader = pipe
    core = Core(onnx_engine, Telemetry(records=RequestRecords(path), counting=tmp_path / "counting"), batch_size=4)
    core.answer([Item({"data": photos[0]}, "warm-up")])
    (tmp_path / "counting").touch()
    text = [b64encode(photo).decode() for photo in (*photos[:5], b"nothing")]
    v1 = json.dumps({"instances": text, "parameters": {"request_id": "from-the-json"}}).encode()
    v2 = json.dumps({"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": text[:1]}]}).encode()
    queued = time.monotonic_ns() - 10_000_000
    batch = [
        Item({"data": photos[0], "request_id": b"from-the-input"}, "job-1", queued=queued, depth=3),
        Item({"data": photos[0]}, "job-2", explain=True, request_id="from-a-header", trace=TRACE),
        Item({"body": v1}, "job-3"),
        Item({"body": v2}, "job-4"),
        Item({"data": b"nothing"}, "job-5"),
        Item({"data": photos[0]}, "job-6", closed=True, queued=queued),
        Item({"body": photos[0]}, "job-7", tensors=True, closed=True),
    ]
    answers = core.answer(batch)
    found = lines(reader)
    for key, expected in {
        "job": [f"job-{n}" for n in range(1, 8)],
        "request_id": ["from-the-input", "from-a-header", "from-the-json", "job-4", "job-5", "job-6", "job-7"],
        "trace": [None, TRACE, None, None, None, None, None],
        "kind": ["predict", "explain", "v1", "v2", "predict", "predict", "v2"],
        "status": [200, 200, 200, 200, 415, 499, 499],
        "code": [None, None, None, None, "unsupported_format", "client_closed_request", "client_closed_request"],
        "photos": [1, 1, 6, 1, 1, 1, 1],
        "failed": [0, 0, 1, 0, 1, 1, 1],
        "queued": [queued, None, None, None, None, queued, None],
        "depth": [3, None, None, None, None, None, None],
        "version": [onnx_engine.manifest.model.version] * 7,
        "requests": [7] * 7,
    }.items():
        assert [line[key] for line in found] == expected, key
    assert [answer.status for answer in answers] == [line["status"] for line in found]
    assert len({line["batch"] for line in found}) == 1
    for line in found:
        assert set(line["stages"]) == set(STAGES)
        assert 0 < line["received"] <= line["done"] <= time.monotonic_ns()
        inside = sum(seconds for stage, seconds in line["stages"].items() if stage != "queue")
        assert inside <= (line["done"] - line["received"]) / 1e9 + 1e-6
        assert (line["stages"]["queue"] >= 0.01) is (line["queued"] is not None)
        assert (inside == 0) is (line["status"] == 499)
        assert (line["stages"]["explain"] > 0) is (line["status"] != 499)


def test_a_full_pipe_and_a_missing_reader_lose_lines_and_hold_nobody_up(tmp_path, pipe):
    path, reader = pipe
    records = RequestRecords(path)
    sent = [{"n": n, "text": "x" * 500} for n in range(1000)]
    records.write(sent)
    found = lines(reader)
    assert 0 < len(found) < len(sent)
    assert found == sent[: len(found)], "each write arrives whole"
    records.write(sent[:9])
    assert lines(reader) == sent[:9]
    records.write([{"text": "x" * MAX_BYTES}])
    assert lines(reader) == []
    for broken in (tmp_path / "nothing", tmp_path):
        RequestRecords(broken).write(sent[:1])


def test_writing_goes_on_when_there_is_a_reader_again(tmp_path):
    path = tmp_path / "requests"
    os.mkfifo(path)
    records = RequestRecords(path)
    records.write([{"n": 0}])
    for n in (1, 2):
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        records.write([{"n": n}])
        assert json.loads(os.read(reader, 1000)) == {"n": n}
        os.close(reader)
        records.write([{"n": "lost"}])
