"""Workers on the same CPUs: one that computes alone gets them all, and none waits for another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detector.manifest import Manifest
from detector.tolerance import LOGIT, disagreement
from handlers.cpu_lock import UNCONTENDED_RUNS, CpuLock
from handlers.engine import OnnxEngine


def all_cpus(lock: CpuLock, *, single: bool = True) -> bool:
    with lock.hold(single=single) as granted:
        return granted


@pytest.fixture
def lock(tmp_path: Path) -> CpuLock:
    """The lock of one worker, after as many single photos alone as are needed."""
    mine = CpuLock(tmp_path / "cpu.lock")
    assert [all_cpus(mine) for _ in range(UNCONTENDED_RUNS + 2)] == [False] * UNCONTENDED_RUNS + [True, True]
    return mine


def test_a_batch_gets_its_share_and_begins_the_count_again(lock: CpuLock) -> None:
    assert not all_cpus(lock, single=False)
    assert [all_cpus(lock) for _ in range(UNCONTENDED_RUNS + 1)] == [False] * UNCONTENDED_RUNS + [True]


@pytest.mark.parametrize("single", [False, True])
def test_so_does_another_worker_that_computes(lock: CpuLock, tmp_path: Path, single: bool) -> None:
    with CpuLock(tmp_path / "cpu.lock").hold(single=single):
        assert not all_cpus(lock)
    assert [all_cpus(lock) for _ in range(UNCONTENDED_RUNS + 1)] == [False] * UNCONTENDED_RUNS + [True]


def test_a_worker_beside_one_that_has_all_cpus_does_not_wait(lock: CpuLock, tmp_path: Path) -> None:
    other = CpuLock(tmp_path / "cpu.lock")
    with lock.hold(single=True) as granted:
        assert granted
        assert not all_cpus(other)
        assert not all_cpus(other, single=False)


def test_a_failure_releases_the_lock(lock: CpuLock, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), lock.hold(single=True):
        raise ValueError("broken")
    other = CpuLock(tmp_path / "cpu.lock")
    assert any(all_cpus(other) for _ in range(UNCONTENDED_RUNS + 1))


def test_scores_are_the_same_whichever_cpus_they_come_from(artifacts: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(artifacts / "manifest.json")
    worker = OnnxEngine(artifacts / "model.onnx", manifest, threads=1, cpu_lock=CpuLock(tmp_path / "cpu.lock"))
    plain = OnnxEngine(artifacts / "model.onnx", manifest, threads=1)
    photos = np.random.default_rng(0).integers(0, 256, (1, *manifest.image_spec.shape), dtype=np.uint8)
    logits = np.stack([worker.run(photos).logit for _ in range(UNCONTENDED_RUNS + 2)])
    plain_logit = plain.run(photos).logit
    assert not disagreement(logits, np.broadcast_to(plain_logit, logits.shape), LOGIT)
