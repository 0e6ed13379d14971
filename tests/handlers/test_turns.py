"""Workers on the same CPUs: one alone takes them all, and none waits for another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from handlers import engine
from handlers.cpu_lock import Turns
from handlers.engine import PEACE, OnnxEngine


def test_one_is_alone_while_no_other_computes(tmp_path: Path) -> None:
    one, two = Turns(tmp_path / "turns"), Turns(tmp_path / "turns")
    with one.take(alone=True) as own:
        assert own
        with two.take(alone=True) as other:
            assert not other
        with two.take(alone=False) as other:
            assert not other
    with two.take(alone=False) as own:
        assert not own
        with one.take(alone=True) as other:
            assert not other
    with one.take(alone=True) as own:
        assert own


def test_a_failure_gives_the_turn_back(tmp_path: Path) -> None:
    one, two = Turns(tmp_path / "turns"), Turns(tmp_path / "turns")
    with pytest.raises(ValueError, match="broken"), one.take(alone=True):
        raise ValueError("broken")
    with two.take(alone=True) as own:
        assert own


def test_lone_photos_get_all_cpus_after_some_in_peace_and_the_same_scores(
    artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "available_cpus", lambda: 4)
    manifest = engine.Manifest.load(artifacts / "manifest.json")
    turns, other = Turns(tmp_path / "turns"), Turns(tmp_path / "turns")
    worker = OnnxEngine(artifacts / "model.onnx", manifest, threads=1, turns=turns)
    plain = OnnxEngine(artifacts / "model.onnx", manifest, threads=1)
    used: list[bool] = []
    run_graph = engine.run_graph
    monkeypatch.setattr(engine, "run_graph", lambda s, *rest: (used.append(s is worker._wide), run_graph(s, *rest))[1])
    photos = np.random.default_rng(0).integers(0, 256, (2, *manifest.image_spec.shape), dtype=np.uint8)

    def run(images: np.ndarray) -> tuple[np.ndarray, bool]:
        used.clear()
        logit = worker.run(images).logit
        return logit, used[0]

    logits, wide = zip(*(run(photos[:1]) for _ in range(PEACE + 2)), strict=True)
    assert list(wide) == [False] * PEACE + [True, True]
    assert np.allclose(logits, plain.run(photos[:1]).logit, atol=1e-5)
    assert run(photos)[1] is False  # a batch begins the count again
    assert run(photos[:1])[1] is False
    for _ in range(PEACE):
        run(photos[:1])
    assert run(photos[:1])[1] is True
    with other.take(alone=False):
        assert run(photos[:1])[1] is False
