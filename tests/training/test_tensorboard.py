"""`--tensorboard` writes the run's history where TensorBoard reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.training.conftest import RUN, fit

pytestmark = pytest.mark.slow


def test_the_logs_hold_the_history_of_the_run(tiny_set: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert fit("--data", tiny_set, "--out", out, "--tensorboard", *RUN) == 0
    history = json.loads((out / "metrics.json").read_text())["history"]
    assert history == json.loads((tiny_run / "metrics.json").read_text())["history"]  # logging changes nothing
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {*history[0], "images_per_second"} - {"epoch"}
    logged = events.Scalars("tune_auc")
    assert [event.step for event in logged] == [1, 2, 3, 4, 5]
    assert [event.value for event in logged] == pytest.approx([row["tune_auc"] for row in history], rel=1e-6)
    assert not (tiny_run / "tensorboard").exists()
