"""A run writes the options that repeat it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from unmask.__main__ import main

pytestmark = pytest.mark.slow


def test_a_run_is_repeated_from_the_options_that_it_wrote(tiny_set: Path, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    assert main(["train", "--config", str(tiny_run / "run.yaml"), "--out", str(out), "--workers", "0"]) == 0
    first, second = (json.loads((run / "metrics.json").read_text()) for run in (tiny_run, out))
    assert second["arguments"] == first["arguments"]
    assert second["validation"]["auc"] == first["validation"]["auc"]
