"""`python -m detector score`: every path gets a line, in order, and the exit code tells whether all were scored."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from detector import FileError, Manifest, decode_image
from detector.scorer import Scorer
from tests.conftest import ROOT


def score(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "detector", "score", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_photos_get_verdicts_in_order(artifacts, photo_files):
    result = score("--model", artifacts / "model.onnx", *photo_files[:7], "--batch", 3)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["path"] for line in lines] == [str(p) for p in photo_files[:7]]
    scorer = Scorer(artifacts / "model.onnx")
    for line, path in zip(lines, photo_files, strict=False):
        alone = scorer.score(path.read_bytes())
        assert line["logit"] == pytest.approx(alone.logit, abs=1e-4)
        assert line["calibrated"] == pytest.approx(alone.calibrated, abs=1e-3)
        assert line["prediction"] == alone.prediction


def test_a_bad_file_is_a_line_and_the_rest_go_on(artifacts, photo_files, tmp_path):
    (tmp_path / "text.jpg").write_text("no photo")
    paths = [photo_files[0], tmp_path / "text.jpg", tmp_path / "absent.jpg", photo_files[1]]
    result = score("--model", artifacts / "model.onnx", *paths)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 1
    assert [line["ok"] for line in lines] == [True, False, False, True]
    assert lines[1]["error"]["code"] == "unsupported_format"
    assert "No such file" in lines[2]["error"]["message"]
    assert "2 of 4" in result.stderr


def test_a_folder_is_searched_and_csv_is_written(artifacts, photos, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "a.JPG").write_bytes(photos[0])
    (tmp_path / "in" / "b.jpeg").write_bytes(photos[1])
    (tmp_path / "in" / "notes.txt").write_text("passed over")
    out = tmp_path / "scores.csv"
    assert score("--model", artifacts / "model.onnx", tmp_path / "in", "--format", "csv", "--out", out).returncode == 0
    rows = list(csv.DictReader(out.open()))
    assert [Path(row["path"]).name for row in rows] == ["b.jpeg", "a.JPG"]
    assert all(0 <= float(row["calibrated"]) <= 1 for row in rows)


def test_without_the_calibrator_the_raw_probability_is_reported(artifacts, photo_files):
    line = json.loads(score("--model", artifacts / "model.onnx", photo_files[0], "--no-calib").stdout)
    assert line["used_calibrator"] is False
    assert line["calibrated"] == line["raw_prob"]


def test_wrong_usage_and_an_absent_model_have_their_own_exit_codes(artifacts, photo_files, tmp_path):
    assert score("--model", artifacts / "model.onnx", tmp_path).returncode == 2
    absent = score("--model", tmp_path / "model.onnx", photo_files[0])
    assert absent.returncode == 1
    assert absent.stderr.startswith("error: ")
    assert "Traceback" not in absent.stderr


def test_a_tampered_model_is_refused(artifacts, tmp_path):
    (tmp_path / "manifest.json").write_bytes((artifacts / "manifest.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes((artifacts / "model.onnx").read_bytes() + b"\0")
    with pytest.raises(FileError, match="SHA-256"):
        Scorer(tmp_path / "model.onnx")


def test_the_public_doors_open(artifacts, photos):
    spec = Manifest.load(artifacts / "manifest.json").image_spec
    assert decode_image(photos[0], spec).shape == spec.shape


def test_one_photo_gets_one_answer_whatever_batch_it_travels_in(artifacts, photos):
    scorer = Scorer(artifacts / "model.onnx")
    images = [decode_image(data, scorer.manifest.image_spec) for data in photos]
    together = [v for i in range(0, len(images), 8) for v in scorer.score_images(images[i : i + 8])]
    for image, verdict in zip(images, together, strict=True):
        (alone,) = scorer.score_images([image])
        assert alone.calibrated == pytest.approx(verdict.calibrated, abs=1e-3)
