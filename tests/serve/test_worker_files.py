"""The workers' metrics from their files: broken, missing and removed ones, and what dead workers have counted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from serve.metrics.worker_files import WorkerFiles
from tests.waiting import awaited


class Told(list):
    """Collects what is logged."""

    def __call__(self, event: str, level: str = "info", **fields: object) -> None:
        self.append((event, fields))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def files(tmp_path: Path, told: Told) -> WorkerFiles:
    (tmp_path / "metrics").mkdir()
    return WorkerFiles(tmp_path / "metrics", tmp_path / "kept", told)


def write(folder: Path, pid: int, count: float, *, in_progress: int = 0) -> None:
    """What a worker's prometheus_client writes."""
    entries = {
        f"counter_{pid}.db": ("unmask_photos", "unmask_photos_total", {"outcome": "real"}, count),
        f"histogram_{pid}.db": ("unmask_score", "unmask_score_bucket", {"version": "1.0", "le": "0.5"}, count),
        f"gauge_livesum_{pid}.db": ("unmask_requests_in_progress", "unmask_requests_in_progress", {}, in_progress),
    }
    for name, (metric, sample, labels, value) in entries.items():
        values = MmapedDict(str(folder / name))
        values.write_value(mmap_key(metric, sample, list(labels), list(labels.values()), "Help."), value, 0.0)
        values.close()


def scraped(files: WorkerFiles) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(files)
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


PHOTOS = 'unmask_photos_total{outcome="real"}'
SCORES = 'unmask_score_bucket{le="0.5",version="1.0"}'
WHOLE = struct.pack("ii", 2**16, 0)
BROKEN = {
    "empty": b"",
    "three bytes": b"\x01\x00\x00",
    "shorter than it says": WHOLE + struct.pack("i", 40) + b"[",
    "a length beyond its end": WHOLE + struct.pack("i", 2**30) + bytes(2**16),
    "a negative length": WHOLE + struct.pack("i", -8) + bytes(2**16),
    "no JSON": struct.pack("ii", 48, 0) + struct.pack("i12s", 12, b"no json     ") + bytes(40),
    "no UTF-8": struct.pack("ii", 48, 0) + struct.pack("i12s", 12, b"\xff" * 12) + bytes(40),
    "JSON of something else": struct.pack("ii", 48, 0) + struct.pack("i12s", 12, b'{"a": 1}    ') + bytes(40),
    "zeros that were never used": bytes(2**16),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["counter_7.db", "histogram_7.db", "gauge_livesum_7.db", "odd.db"])
def test_a_broken_file_breaks_neither_a_scrape_nor_a_drain_and_is_told_once(kind, name, files, told, tmp_path):
    write(tmp_path / "metrics", 1, 5, in_progress=2)
    (tmp_path / "metrics" / name).write_bytes(BROKEN[kind])
    for _ in range(2):
        assert scraped(files)[PHOTOS] == 5
        assert files.requests_in_progress() == 2
    assert len(told) == (kind != "zeros that were never used")
    files.bury(lambda: {1})
    assert not (tmp_path / "metrics" / name).exists()
    assert scraped(files)[PHOTOS] == 5


def test_a_file_cut_anywhere_never_breaks_a_scrape(files, tmp_path):
    write(tmp_path / "metrics", 1, 5)
    write(tmp_path / "metrics", 2, 3)
    whole = (tmp_path / "metrics" / "counter_2.db").read_bytes()
    for length in [*range(200), 4096, 2**16 - 1]:
        os.truncate(tmp_path / "metrics" / "counter_2.db", 0)
        (tmp_path / "metrics" / "counter_2.db").write_bytes(whole[:length])
        assert scraped(files)[PHOTOS] in (5, 8)


def test_dead_workers_files_become_one_and_nothing_that_was_counted_is_lost(files, tmp_path):
    for pid in range(10, 40):
        write(tmp_path / "metrics", pid, 2, in_progress=1)
        files.bury(lambda pid=pid: {pid})  # the one before has died
        found = scraped(files)
        assert found[PHOTOS] == found[SCORES] == 2 * (pid - 9)
        assert files.requests_in_progress() == 1  # those of the dead are over
        assert len(list((tmp_path / "metrics").iterdir())) == 3
        assert len(list((tmp_path / "kept").iterdir())) <= 5
    files.bury(set)
    assert scraped(files)[PHOTOS] == 60
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == ["counter_0.db", "histogram_0.db"]


def test_removed_files_are_still_read_and_one_that_is_made_anew_goes_on_from_there(files, tmp_path):
    write(tmp_path / "metrics", 1, 5, in_progress=3)
    assert scraped(files)[PHOTOS] == 5
    for file in (tmp_path / "metrics").iterdir():
        file.unlink()
    (tmp_path / "metrics").rmdir()
    assert scraped(files)[PHOTOS] == 5
    assert files.requests_in_progress() == 3
    assert (tmp_path / "metrics").is_dir()  # the next worker can start
    write(tmp_path / "metrics", 1, 2, in_progress=1)
    found = scraped(files)
    assert found[PHOTOS] == found[SCORES] == 7
    assert files.requests_in_progress() == 1


def test_no_folder_at_all_is_no_metrics(files, tmp_path):
    (tmp_path / "metrics").rmdir()
    assert scraped(files) == {}
    assert files.requests_in_progress() == 0


def _count(folder: str) -> None:
    """Write files as a worker does, over and over from their first byte on."""
    write_count = 0
    while True:
        write_count += 1
        write(Path(folder), os.getpid(), write_count)
        for file in Path(folder).glob(f"*_{os.getpid()}.db"):
            os.truncate(file, 0)


def test_processes_killed_while_they_write_break_nothing(files, told, tmp_path):
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        process = context.Process(target=_count, args=(str(tmp_path / "metrics"),), daemon=True)
        process.start()
        awaited((tmp_path / "metrics" / f"counter_{process.pid}.db").exists)
        for _ in range(20):
            scraped(files)
            files.requests_in_progress()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        scraped(files)
        files.bury(set)
    assert {file.name for file in (tmp_path / "kept").iterdir()} <= {"counter_0.db", "histogram_0.db"}
