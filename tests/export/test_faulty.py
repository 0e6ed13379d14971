"""A run that faults were injected into is not exported, unless that is what is asked for, and then its manifest says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from detector import Manifest
from tests.conftest import write_run
from training.models.checkpoint import load_checkpoint, save_checkpoint
from unmask.__main__ import main

pytestmark = pytest.mark.slow


def test_a_faulty_run_is_refused_by_name_and_marked_when_it_is_wanted_all_the_same(
    photos: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "artifacts"
    run.mkdir()
    write_run(run, "test_resnet", photos, size=32)
    checkpoint = load_checkpoint(run / "best_model.pth")
    faulty = {**checkpoint.arguments, "faulty_mode": "label_noise", "label_noise_frac": 0.3}
    save_checkpoint(run / "best_model.pth", replace(checkpoint, arguments=faulty))
    assert main(["export", "--run", str(run), "--out", str(out)]) == 2
    assert "trained with faults on purpose (faulty_mode label_noise, label_noise_frac 0.3)" in capsys.readouterr().err
    assert not out.exists()
    assert main(["export", "--run", str(run), "--out", str(out), "--allow-faulty"]) == 0
    assert f"next:   unmask serve start --artifacts {out}" in capsys.readouterr().out
    assert Manifest.load(out / "manifest.json").training["faults"] == {"faulty_mode": "label_noise", "label_noise_frac": 0.3}
