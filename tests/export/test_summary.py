"""What the commands print: a summary for a person, JSON with `--json`; and what they refuse before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from detector import Manifest
from export.summary import summary, verify_summary, worst
from tests.conftest import ROOT
from unmask.__main__ import main


def test_a_summary_names_each_file_its_size_parity_and_the_next_command(artifacts: Path) -> None:
    manifest = Manifest.load(artifacts / "manifest.json")
    lines = summary(manifest, artifacts).splitlines()
    assert len(lines) == 7
    assert lines[0] == "detector 1.0: mobilenetv3_small_050, calibration isotonic, Fake from 0.5 on"
    assert [line.split()[0] for line in lines[1:5]] == ["manifest.json", *manifest.files]
    assert all(line.endswith(("KiB", "MiB")) for line in lines[1:5])
    what, fraction = worst(manifest.parity)
    assert 0 < fraction <= 1
    assert lines[5].startswith("parity: on 32 images (drawn pictures) the largest difference is ")
    assert lines[5].endswith(f"% of its bound ({what})")
    assert lines[6] == f"next:   unmask serve start --artifacts {artifacts}"


def test_the_precision_line_says_what_fewer_bits_cost(artifacts: Path) -> None:
    report = {
        "layers": {"reduced": 40, "float32": {"accuracy": ["one"], "speed": ["two"]}},
        "logit_error": {"judged": 0.0512},
        "auc": {"float32": 0.95, "int8": 0.9491},
        "times_as_fast": {"batch_1": 1.9, "batch_8": 2.1, "vnni": False},
    }
    manifest = replace(Manifest.load(artifacts / "manifest.json"), precision={"int8": report})
    assert (
        "int8: 40 of 42 layers in 8 bits, the logit moves by 0.051 of its standard deviation, AUC 0.9500 -> 0.9491, "
        "1.9 times as fast for one photo (this CPU has no VNNI)"
    ) in summary(manifest, artifacts).splitlines()


def test_verify_names_what_failed_or_says_that_all_is_well(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(artifacts)]) == 0
    printed = capsys.readouterr().out
    assert f"{artifacts}: all 5 checks passed (" in printed
    assert "parity: on 32 images" in printed
    report = {"checks": {"manifest.json": "ok", "model.onnx": "model.onnx: SHA-256 is 12…"}, "parity": {}}
    assert verify_summary(report, Path("there")).splitlines() == [
        "there: 1 of 2 checks failed",
        "  model.onnx: SHA-256 is 12…",
    ]
    assert main(["verify", "--json", str(artifacts)]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_what_is_not_there_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    file, run = tmp_path / "file", tmp_path / "run"
    file.touch()
    run.mkdir()
    (run / "best_model.pth").touch()
    nowhere, out = str(tmp_path / "nowhere"), str(tmp_path / "out")
    cases = [
        (["export", "--run", nowhere, "--out", out], "nowhere: no such folder"),
        (["export", "--run", str(file), "--out", out], "file: is a file; give the folder of the run"),
        (["export", "--run", str(tmp_path), "--out", out], "best_model.pth: no such checkpoint"),
        (["export", "--run", str(run), "--out", str(file)], "file: is a file; give a folder"),
        (["export", "--run", str(run), "--out", out, "--photos", nowhere], "nowhere: no such folder"),
        (["export", "--run", str(run), "--out", out, "--data", str(file)], "file: is a file; give a folder of photos"),
        (["verify", nowhere], "nowhere: no such folder; `unmask export` writes artifacts"),
        (["recalibrate", str(tmp_path), "--run", nowhere], "nowhere: no such folder; `unmask train` writes a run"),
    ]
    program = f"""
import sys
from unmask.__main__ import main
for arguments in {[arguments for arguments, _ in cases]!r}:
    assert main(arguments) in (1, 2), arguments
assert not {{"torch", "onnx", "onnxruntime"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line, (_, said) in zip(done.stderr.splitlines(), cases, strict=True):
        assert said in line
