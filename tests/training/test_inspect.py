"""`unmask inspect`: a checkpoint says what it is, and runs nothing."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import torch

from training.models.checkpoint import load_checkpoint
from unmask.__main__ import main


class Bomb:
    """Unpickled, this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_it_prints_model_spec_arguments_and_size(run_dir, capsys):
    assert main(["inspect", str(run_dir / "best_model.pth")]) == 0
    told = json.loads(capsys.readouterr().out)
    checkpoint = load_checkpoint(run_dir / "best_model.pth")
    assert told["model"]["name"] == checkpoint.model_config.name
    assert told["image_spec"] == checkpoint.image_spec.to_dict()
    assert told["values"] == sum(t.numel() for t in checkpoint.weights.values())
    assert told["resumable"] is False
    assert told["warnings"] == []


def test_it_tells_what_the_runs_numbers_say_against_it(run_dir, tmp_path, capsys):
    shutil.copy(run_dir / "best_model.pth", tmp_path)
    auc = {"value": 0.527, "low": 0.47, "high": 0.58}
    (tmp_path / "metrics.json").write_text(json.dumps({"validation": {"auc": auc}}))
    assert main(["inspect", str(tmp_path / "best_model.pth")]) == 0
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert warning["code"] == "auc_at_chance"
    assert "0.527" in warning["message"]


def test_no_code_in_the_file_is_run(tmp_path, capsys):
    for name, save in (("torch.pth", torch.save), ("plain.pth", lambda v, p: p.write_bytes(pickle.dumps(v)))):
        save({"format": 1, "model": Bomb(tmp_path / "boom")}, tmp_path / name)
        assert main(["inspect", str(tmp_path / name)]) == 1
        assert "without running code" in capsys.readouterr().err
    assert not (tmp_path / "boom").exists()


def test_an_absent_file_is_named(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "none.pth")]) == 1
    assert "none.pth" in capsys.readouterr().err
