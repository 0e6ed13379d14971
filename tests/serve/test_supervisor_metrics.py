"""What the supervisor knows of GPUs, the JVM, versions, labels and the ends of workers."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from detector.errors import UsageError
from detector.manifest import Manifest
from detector.verdict import Band
from serve.logs.jvm_output import Line
from serve.metrics.feedback import MOST, Feedback, Label, read_labels
from serve.metrics.gpu import GpuMetrics
from serve.metrics.jvm import read_counters
from serve.metrics.models import ModelMetrics
from serve.processes.workers import LAST_WORDS_SECONDS, OomKills, Workers
from serve.settings import Settings


def values(collector) -> dict[tuple[str, ...], float]:
    """The samples: name and the values of the labels, in the order of their names."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


class FakeNvml:
    """Stands in for NVIDIA's library, which wants its hardware: two GPUs, of which one tells no power, and can be lost."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, driver: bool = True) -> None:
        self.driver, self.lost = driver, False

    def nvmlInit(self):  # noqa: N802
        if not self.driver:
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, gpu):  # noqa: N802
        if self.lost and gpu == 1:
            raise self.NVMLError("GPU is lost")
        return f"GPU-{gpu}"

    def nvmlDeviceGetName(self, gpu):  # noqa: N802
        return "A GPU"

    def nvmlDeviceGetUtilizationRates(self, gpu):  # noqa: N802
        return SimpleNamespace(gpu=37)

    def nvmlDeviceGetMemoryInfo(self, gpu):  # noqa: N802
        return SimpleNamespace(used=10, total=40)

    def nvmlDeviceGetPowerUsage(self, gpu):  # noqa: N802
        if gpu == 0:
            raise self.NVMLError("not supported")
        return 65_500


def test_a_gpus_values_are_there_and_what_it_does_not_tell_is_absent():
    library = FakeNvml()
    gpus = GpuMetrics(library)
    found = values(gpus)
    assert found["unmask_gpu_utilization_ratio", "A GPU", "GPU-0"] == 0.37
    assert found["unmask_gpu_memory_used_bytes", "A GPU", "GPU-1"] == 10
    assert found["unmask_gpu_memory_total_bytes", "A GPU", "GPU-0"] == 40
    assert [(key, value) for key, value in found.items() if "power" in key[0]] == [
        (("unmask_gpu_power_watts", "A GPU", "GPU-1"), 65.5)
    ]
    library.lost = True
    assert {key[2] for key in values(gpus)} == {"GPU-0"}


def test_without_a_driver_no_gpu_is_told_and_one_that_comes_later_is():
    library = FakeNvml(driver=False)
    gpus = GpuMetrics(library)
    assert values(gpus) == {}
    library.driver = True
    assert values(gpus)


def test_a_file_of_counters_that_is_none_is_refused():
    for data in (b"", b"\xca\xfe\xc0\xc0" + bytes(10), b"x" * 64):
        with pytest.raises(ValueError):
            read_counters(data)
    header = struct.pack("<4B4xiiqii", 1, 2, 0, 1, 0, 0, 0, 32, 5)
    with pytest.raises(ValueError, match="ends before"):
        read_counters(struct.pack(">I", 0xCAFEC0C0) + header[:4] + struct.pack("<iiqii", 0, 0, 0, 32, 5))


@pytest.mark.slow
def test_versions_have_their_archive_and_the_shares_of_their_reference_scores(artifacts):
    manifest = Manifest.load(artifacts / "manifest.json")
    found = values(ModelMetrics(Settings(), {"1.0": manifest}, "9.9"))
    sha256 = manifest.files["detector-onnx.mar"]
    assert found["unmask_model_info", "onnx", manifest.model.backbone, sha256, "0.5", "", "1.0"] == 1
    shares = {key[1:]: value for key, value in found.items() if key[0] == "unmask_score_reference"}
    assert shares == {("0.0", "0.5", "1.0"): 0.4, ("0.5", "1.0", "1.0"): 0.6}
    assert {key[1:]: value for key, value in found.items() if key[0] == "unmask_score_uncertain"} == dict.fromkeys(shares, 1)
    for band, near in ((Band(0.5, 0.7), (0, 1)), (Band(0.2, 0.5), (1, 0)), (Band(0.4, 0.6), (1, 1)), (Band(0.5, 0.5), (0, 0))):
        banded = values(ModelMetrics(Settings(), {"1.0": replace(manifest, uncertain=band)}, "9.9"))
        assert tuple(value for key, value in banded.items() if key[0] == "unmask_score_uncertain") == near
        assert (
            "unmask_model_info",
            "onnx",
            manifest.model.backbone,
            sha256,
            "0.5",
            f"{band.lower}-{band.upper}",
            "1.0",
        ) in banded
    (build,) = [key for key in found if key[0] == "unmask_build_info"]
    assert "9.9" in build
    assert "0.12.0" in build


def label(**changes: object) -> dict[str, object]:
    return {"version": "1.0", "score": 0.5, "label": "real"} | changes


def test_labels_are_counted_by_version_tenth_and_label():
    feedback = Feedback(["1.0", "2.0"])
    assert len(values(feedback)) == 2 * 10 * 3
    assert not any(values(feedback).values())
    scores = [0, 0.0999, 0.1, 0.95, 1, 1.0]
    feedback.add(read_labels(json.dumps([label(score=score, label="fake") for score in scores]).encode(), ["1.0", "2.0"]))
    feedback.add(read_labels(json.dumps(label(version="2.0")).encode(), ["1.0", "2.0"]))
    found = values(feedback)
    assert found["unmask_feedback_total", "0.0-0.1", "fake", "1.0"] == 2
    assert found["unmask_feedback_total", "0.1-0.2", "fake", "1.0"] == 1
    assert found["unmask_feedback_total", "0.9-1.0", "fake", "1.0"] == 3
    assert found["unmask_feedback_score_total", "0.9-1.0", "1.0"] == pytest.approx(2.95)
    assert found["unmask_feedback_total", "0.5-0.6", "real", "2.0"] == 1
    assert Label("1.0", 0.3, "real").bin == "0.3-0.4"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"3", "an object"),
        (json.dumps(label(version="3.0")), "1.0"),
        (json.dumps(label(version=["1.0"])), "1.0"),
        (json.dumps(label(score=1.01)), "from 0 to 1"),
        (json.dumps(label(score="0.5")), "from 0 to 1"),
        (json.dumps(label(score=True)), "from 0 to 1"),
        ('{"version": "1.0", "score": NaN, "label": "real"}', "from 0 to 1"),
        (json.dumps(label(label="Fake")), "real nor fake"),
        (json.dumps(label(photo="x.jpg")), "no other key"),
        (json.dumps([label(), label(score=-1)]), "label 2"),
        (json.dumps([label()] * (MOST + 1)), str(MOST)),
    ],
    ids=range(14),
)
def test_a_wrong_label_is_refused_with_its_reason(body, said):
    with pytest.raises(UsageError, match=said):
        read_labels(body if isinstance(body, bytes) else body.encode(), ["1.0"])


class Ends:
    """Real processes as workers, what the JVM would say of them, and what is told."""

    def __init__(self, groups: Path) -> None:
        self.told: list[dict[str, object]] = []
        self.workers = Workers(lambda event, level="info", **fields: self.told.append(fields), OomKills(groups, groups))

    def start(self, name: str = "W-9000-detector_1.0") -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        self.say(f"{name}-stdout", f"[PID]{process.pid}")
        return process

    def say(self, thread: str, message: str) -> None:
        logger = "MODEL_LOG" if thread.endswith("-stdout") else "org.pytorch.serve.wlm.WorkerThread"
        self.workers.watch(Line("info", logger, thread, message))

    def end(self, process: subprocess.Popen[bytes]) -> dict[str, object]:
        process.kill()
        process.wait()
        assert self.workers.look() == 0  # its last words may still come
        time.sleep(LAST_WORDS_SECONDS)
        assert self.workers.look() == 1
        return self.told.pop()


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    """With a control group of its own, as a file."""
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text("4:memory:/pod\n0::/\n")
    (tmp_path / "memory" / "pod").mkdir(parents=True)
    (tmp_path / "memory" / "pod" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    return Ends(tmp_path)


def test_a_worker_that_ends_is_told_with_its_process_version_and_reason(ends, tmp_path):
    process = ends.start()
    assert set(ends.workers.alive()) == {process.pid}
    told = ends.end(process)
    assert (told["pid"], told["version"], told["reason"]) == (process.pid, "1.0", "killed")

    process = ends.start()
    for line in ("Backend worker process died.", "Traceback (most recent call last):", "  File", "MemoryError: too large"):
        ends.say("W-9000-detector_1.0-stdout", line)
    told = ends.end(process)
    assert (told["reason"], told["detail"]) == ("exited", "MemoryError: too large")

    process, other = ends.start(), ends.start("W-9001-detector_2.0")
    ends.say(
        "W-9000-detector_1.0",
        "Backend worker error\nWorkerInitializationException: Backend worker did not respond in given time",
    )
    assert ends.end(process)["reason"] == "hung"

    (tmp_path / "memory" / "pod" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    told = ends.end(other)
    assert (told["version"], told["reason"]) == ("2.0", "memory")
    again = ends.start()
    assert ends.end(again)["reason"] == "killed"  # that one was counted
    found = values(ends.workers)
    assert {key[1]: value for key, value in found.items() if "restarts" in key[0]} == {
        **{"killed": 2, "exited": 1},
        **{"hung": 1, "memory": 1},
    }


def test_a_worker_that_was_replaced_before_anybody_looked_is_told_too(ends):
    process = ends.start()
    process.kill()
    process.wait()
    successor = ends.start()
    ends.workers.look()
    time.sleep(LAST_WORDS_SECONDS)
    assert ends.workers.look() == 1
    assert ends.told.pop()["pid"] == process.pid
    assert set(ends.workers.alive()) == {successor.pid}
    memory = {key[1] for key in values(ends.workers) if key[0] == "unmask_worker_resident_memory_bytes"}
    assert memory == {str(successor.pid)}
    successor.kill()
    successor.wait()
