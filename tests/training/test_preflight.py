"""What is refused before torch is imported, and which options are said to change nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from detector.errors import FileError, UsageError
from tests.conftest import ROOT
from training.fit.preflight import check, notes
from training.options import FitOptions


def test_a_wrong_folder_an_existing_run_and_a_missing_member_are_refused_without_torch(tiny_set: Path, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from detector.errors import UnmaskError
from training.fit.preflight import check
from training.options import FitOptions
data, out = map(Path, sys.argv[1:])
for options in (
    {"data": out}, {"data": data / "nowhere"}, {"out": data}, {"group_by": "("}, {"cache_dir": out / "file" / "cache"},
    {"model": "ensemble", "members": (data, out)},
):
    try:
        check(FitOptions(**{"data": data, "out": out / "run", **options}))
    except UnmaskError as error:
        print(error.message)
print("torch" in sys.modules)
"""
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tiny_set), str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    *said, torch = done.stdout.splitlines()
    assert torch == "False"
    for line, words in zip(
        said,
        ("found no folders and 1 files", "no such folder", "holds Train, Validation; give a folder of its own",
         "is not a regular expression", "is a file, and a folder is to be made there", "best_model.pth: no such file"),
        strict=True,
    ):  # fmt: skip
        assert words in line


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"resume": True}, "holds no finished epoch; training starts from the beginning"),
        ({"label_noise_frac": 0.3}, "--label-noise-frac changes nothing without --faulty-mode label_noise"),
        ({"input_noise_std": 0.3, "faulty_mode": "label_noise"}, "--input-noise-std changes nothing without"),
        ({"faulty_mode": "random_weight_reset", "epochs": 1}, "and there is one epoch"),
        ({"schedule": "cosine", "patience": 3}, "--patience changes nothing with --schedule cosine"),
        ({"model": "ensemble", "members": (Path("a"), Path("b")), "epochs": 3}, "--epochs changes nothing for an ensemble"),
    ],
)
def test_an_option_that_changes_nothing_is_said_to(values: dict, words: str, tmp_path: Path) -> None:
    (said,) = notes(FitOptions(Path("data"), out=tmp_path / "run", **values))
    assert words in said


def test_what_does_something_is_not_noted(tmp_path: Path) -> None:
    assert notes(FitOptions(Path("data"), faulty_mode="label_noise", label_noise_frac=0.3, out=tmp_path)) == []


def test_of_several_processes_the_first_alone_speaks(tiny_set: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    options = FitOptions(tiny_set, out=tmp_path / "run", pretrained=False, label_noise_frac=0.3)
    monkeypatch.setenv("RANK", "1")
    check(options)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    check(options)
    assert "note: --label-noise-frac" in capsys.readouterr().err


def test_names_that_are_not_utf_8_are_told_in_errors(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(UsageError, match=r"caf\\xe9: no such folder"):
        check(FitOptions(odd))
    (odd / "real").mkdir(parents=True)
    (odd / "fake").mkdir()
    with pytest.raises(FileError, match=r"caf\\xe9/best_model.pth: no such file"):
        check(FitOptions(odd, model="ensemble", members=(odd, tmp_path), out=tmp_path / "run"))
