"""`score`: every path gets a line, in order, and the exit code tells whether all were scored."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from detector import FileError, UsageError, decode_image
from detector.files import PHOTO_SUFFIXES
from detector.score import CSV_COLUMNS, score, write_results
from detector.scorer import Scorer
from detector.tolerance import LOGIT, PROBABILITY, disagreement
from tests.conftest import ROOT

NOT_UTF_8 = os.fsdecode(b"caf\xe9.jpg")


def command(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "unmask", "score", *map(str, arguments)]
    return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def model(artifacts) -> Path:
    return artifacts / "model.onnx"


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_photos_get_verdicts_in_order(model, photo_files):
    result = command("--model", model, *photo_files[:7], "--batch", 3)
    assert result.returncode == 0, result.stderr
    found = lines(result.stdout)
    assert [line["path"] for line in found] == [str(p) for p in photo_files[:7]]
    scorer = Scorer(model)
    for line, path in zip(found, photo_files[:7], strict=True):
        alone = scorer.score(path.read_bytes())
        assert not disagreement(line["logit"], alone.logit, LOGIT)
        assert not disagreement(line["calibrated"], alone.calibrated, PROBABILITY)
        assert line["prediction"] == alone.prediction


def test_a_bad_file_is_a_line_and_the_rest_go_on(model, photo_files, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("no photo")
    assert score([photo_files[0], tmp_path / "text.jpg", tmp_path / "absent.jpg", photo_files[1]], model=model) == 1
    printed = capsys.readouterr()
    found = lines(printed.out)
    assert [line["ok"] for line in found] == [True, False, False, True]
    assert found[1]["error"]["code"] == "unsupported_format"
    assert "No such file" in found[2]["error"]["message"]
    assert "2 of 4" in printed.err


def test_folders_are_searched_for_every_suffix_of_a_photo_and_the_rest_is_counted(model, photos, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "scores.csv"
    (folder / "deep").mkdir(parents=True)
    for suffix in PHOTO_SUFFIXES:
        (folder / "deep" / f"a{suffix.upper()}").write_bytes(photos[0])
    (folder / "b.jpeg").write_bytes(photos[1])
    for name in ("notes.txt", "c.gif", "d.gif", "README"):
        (folder / name).write_text("passed over")
    assert score([folder], model=model, format="csv", out=out) == 0
    assert "passed over 4 of the files in folders: 2 .gif, 1 .txt, 1 without a suffix\n" in capsys.readouterr().err
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(p) for p in [folder / "b.jpeg", *sorted((folder / "deep").iterdir())]]
    assert all(0 <= float(row["calibrated"]) <= 1 for row in rows)
    # A file that is named is scored whatever its suffix is.
    (folder / "photo.bin").write_bytes(photos[0])
    assert score([folder / "photo.bin"], model=model) == 0


def test_a_folder_that_can_not_be_listed_is_an_error_that_names_it(model, tmp_path, monkeypatch):
    def refused(_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "shut"))

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(FileError, match=r"shut: can't be listed \(Permission denied\)"):
        score([tmp_path], model=model)


@pytest.mark.parametrize("format", ["jsonl", "csv"])
@pytest.mark.parametrize("to_file", [False, True])
def test_names_that_are_not_utf_8_are_scored_and_shown(model, photos, tmp_path, format, to_file):
    for name in (NOT_UTF_8, "plain.jpg", "Zürich.jpg"):
        (tmp_path / name).write_bytes(photos[0])
    out = ["--out", tmp_path / "scores"] if to_file else []
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}  # as a terminal of LC_ALL=C is
    result = command("--model", model, "--format", format, *out, tmp_path, env=ascii_only)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "scores").read_text(encoding="utf-8") if to_file else result.stdout
    found = list(csv.DictReader(io.StringIO(text))) if format == "csv" else lines(text)
    listed = "Z\\xfcrich.jpg" if format == "csv" and not to_file else "Zürich.jpg"
    assert [row["path"] for row in found] == [str(tmp_path / name) for name in (listed, "caf\\xe9.jpg", "plain.jpg")]


def test_a_model_in_a_folder_whose_name_is_not_utf_8_is_loaded(artifacts, photos, tmp_path):
    folder = tmp_path / NOT_UTF_8
    folder.mkdir()
    for name in ("model.onnx", "manifest.json"):
        shutil.copy(artifacts / name, folder)
    assert Scorer(folder / "model.onnx").score(photos[0]) == Scorer(artifacts / "model.onnx").score(photos[0])


def test_csv_has_every_column_for_verdicts_and_for_errors(model, photos, tmp_path):
    verdict = {"path": 'a,"b".jpg', **Scorer(model).score(photos[0]).to_dict()}
    error = {"path": "x", "ok": False, "error": {"code": "empty_image", "message": "0 bytes"}, "status": 400}
    out = io.StringIO()
    assert write_results([verdict, error], out, "csv") == {verdict["prediction"]: 1, "": 1}
    first, second = csv.DictReader(io.StringIO(out.getvalue()))
    assert set(first) == set(CSV_COLUMNS)
    assert (first["path"], float(first["confidence"])) == ('a,"b".jpg', verdict["confidence"])
    assert (second["ok"], second["code"], second["message"], second["logit"]) == ("False", "empty_image", "0 bytes", "")


def test_without_the_calibrator_the_raw_probability_is_reported(model, photo_files, capsys):
    assert score(photo_files[:1], model=model, use_calibrator=False) == 0
    (line,) = lines(capsys.readouterr().out)
    assert line["used_calibrator"] is False
    assert line["calibrated"] == line["raw_prob"]


def test_wrong_usage_and_an_absent_model_have_their_own_exit_codes(model, photo_files, tmp_path):
    assert command("--model", model, tmp_path).returncode == 2
    absent = command("--model", tmp_path / "model.onnx", photo_files[0])
    assert absent.returncode == 1
    assert absent.stderr.startswith("error: ")
    assert "Traceback" not in absent.stderr


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"threads": -1}])
def test_values_that_can_not_work_are_refused(model, photo_files, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        score(photo_files[:1], model=model, **wrong)


def test_an_output_that_can_not_be_written_is_named(model, photo_files, tmp_path):
    with pytest.raises(FileError, match=r"nowhere/out: can't be written \(No such file"):
        score(photo_files[:1], model=model, out=tmp_path / "nowhere" / "out")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best_model.pth", r"best_model\.pth: is a file of PyTorch; give the model\.onnx"),
        ("detector-onnx.mar", r"onnx\.mar: is an archive for TorchServe; give the model\.onnx"),
        ("manifest.json", r"manifest\.json: is not an ONNX model"),
        ("model.onnx", r"model\.onnx: has no manifest\.json beside it"),
        ("absent.onnx", r"absent\.onnx: no such file"),
        (".", "is a folder; give a model.onnx, which"),
    ],
)
def test_another_file_than_a_model_is_refused_for_what_it_is(tmp_path, name, message):
    if name not in ("absent.onnx", "."):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FileError, match=message):
        Scorer(tmp_path / name)


def test_a_folder_of_artifacts_in_place_of_the_model_is_told_the_models_name(artifacts):
    with pytest.raises(FileError, match=r"is a folder; give .*/model\.onnx"):
        Scorer(artifacts)


def test_a_tampered_model_is_refused(artifacts, tmp_path):
    (tmp_path / "manifest.json").write_bytes((artifacts / "manifest.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes((artifacts / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(FileError, match="SHA-256"):
        Scorer(tmp_path / "model.onnx")


def test_one_photo_gets_one_answer_whatever_batch_it_travels_in(artifacts, photos):
    scorer = Scorer(artifacts / "model.onnx")
    images = [decode_image(data, scorer.manifest.image_spec) for data in photos]
    together = [v for i in range(0, len(images), 8) for v in scorer.score_images(images[i : i + 8])]
    for image, verdict in zip(images, together, strict=True):
        (alone,) = scorer.score_images([image])
        assert not disagreement(alone.calibrated, verdict.calibrated, PROBABILITY)


def test_photos_of_a_tar_file_are_scored_as_files_are(model, photo_files, tmp_path, capsys):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        for path in photo_files[:3]:
            tar.add(path, arcname=path.name)
    assert score([tmp_path / "set.tar"], model=model, quiet=True) == 0
    packed = lines(capsys.readouterr().out)
    assert score(photo_files[:3], model=model, quiet=True) == 0
    plain = lines(capsys.readouterr().out)
    assert [line["path"] for line in packed] == [f"{tmp_path}/set.tar/{path.name}" for path in photo_files[:3]]
    assert [line["logit"] for line in packed] == [line["logit"] for line in plain]
