"""The command-line client: a line for each file, in order."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from detector.scorer import Scorer
from detector.tolerance import LOGIT, disagreement
from tests.serve.running import unmask, unmask_process


@pytest.mark.parametrize("flags", [(), ("--grpc",)], ids=["rest", "grpc"])
def test_verdicts_come_in_the_files_order_and_failures_among_them(server, photo_files, artifacts, tmp_path, flags):
    bad = tmp_path / "notes.txt"
    bad.write_text("no photo")
    files = [*photo_files[:9], bad, tmp_path / "absent.jpg", *photo_files[9:12]]
    done = unmask("predict", "--state", server.state, *flags, *files)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [line["path"] for line in lines] == [str(f) for f in files]
    assert [line["ok"] for line in lines] == [True] * 9 + [False] * 2 + [True] * 3
    assert [line["error"]["code"] for line in lines if not line["ok"]] == ["unsupported_format", "bad_file"]
    scorer = Scorer(artifacts / "model.onnx", threads=1)
    for line, file in zip(lines, files, strict=True):
        if line["ok"]:
            assert not disagreement(line["logit"], scorer.score(file.read_bytes()).logit, LOGIT)


@pytest.mark.parametrize("flag", ["--raw", "--no-calib"])
def test_raw_probabilities_can_be_asked_for(server, photo_files, flag):
    done = unmask_process("predict", "--state", server.state, flag, photo_files[0])
    assert done.returncode == 0
    assert json.loads(done.stdout)["used_calibrator"] is False


@pytest.mark.parametrize("grpc", [False, True])
def test_an_absent_server_is_a_failure_of_each_file(photo_files, grpc, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        flags = ("--grpc", "--target", address) if grpc else ("--url", f"http://{address}/predictions/detector")
        done = unmask("predict", "--state", tmp_path, *flags, *photo_files[:2])
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["error"]["code"] for line in lines] == ["server_unreachable"] * 2


@pytest.mark.parametrize("flags", [(), ("--grpc",)])
def test_explanations_are_printed_and_their_pictures_written(server, photo_files, tmp_path, flags):
    again = tmp_path / "elsewhere" / photo_files[0].name
    again.parent.mkdir()
    again.write_bytes(photo_files[0].read_bytes())
    bad = tmp_path / "bad.jpg"
    bad.write_text("no photo")
    second_of_its_name = tmp_path / f"{photo_files[0].stem}-2.jpg"
    second_of_its_name.write_bytes(photo_files[2].read_bytes())
    files = [photo_files[0], bad, again, photo_files[1], second_of_its_name]
    done = unmask("predict", "--state", server.state, *flags, "--explain", tmp_path / "pictures", *files)
    assert done.returncode == 1, done.stderr
    first, refused, copy, second, third = map(json.loads, done.stdout.splitlines())
    assert "explanation" not in refused
    stem = photo_files[0].stem
    overlays = [Path(verdict["explanation"]["overlay"]) for verdict in (first, copy, second)]
    assert [o.name for o in overlays] == [f"{stem}.png", f"{stem}-2.png", f"{photo_files[1].stem}.png"]
    assert Path(third["explanation"]["overlay"]).name == f"{stem}-2-2.png", "none is written over"
    assert overlays[0].read_bytes() == overlays[1].read_bytes() != overlays[2].read_bytes()
    with Image.open(overlays[0]) as picture:
        assert picture.format == "PNG"
    assert first["explanation"]["heatmap"] == copy["explanation"]["heatmap"]
    assert "overlay_png" not in first["explanation"]


def test_pictures_that_can_not_be_written_are_told_in_a_line(server, photo_files, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = unmask("predict", "--state", server.state, "--explain", tmp_path / "taken", photo_files[0])
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "taken" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_is_not_utf_8_is_sent_and_shown(server, photos, tmp_path):
    photo = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    photo.write_bytes(photos[0])
    done = unmask("predict", "--state", server.state, "--explain", tmp_path / "pictures", photo)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["path"] == str(tmp_path / "caf\\xe9.jpg")
    assert Path(line["explanation"]["overlay"]).is_file()
