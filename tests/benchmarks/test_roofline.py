"""The roofline does the server's whole work, and its numbers hang together."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.photos import drawn_photos
from benchmarks.roofline import Design, answer, throughput
from detector.scorer import Scorer
from detector.tolerance import PROBABILITY, disagreement
from unmask.__main__ import main


def test_it_makes_the_same_json_verdicts_as_the_scorer(artifacts: Path) -> None:
    scorer = Scorer(artifacts / "model.onnx", threads=1)
    photos = drawn_photos(3)
    bodies = [json.loads(body) for body in answer(scorer, photos)]
    assert len(bodies) == 3
    for body, photo in zip(bodies, photos, strict=True):
        assert body["ok"] is True
        assert not disagreement(body["calibrated"], scorer.score(photo.data).calibrated, PROBABILITY)


@pytest.mark.parametrize("design", [Design("workers", 2, 1), Design("workers", 2, 8), Design("pipeline", 2, 4)])
def test_each_design_answers_photos_all_the_time(artifacts: Path, design: Design) -> None:
    rate = throughput(artifacts / "model.onnx", drawn_photos(8), design, seconds=0.6)
    assert rate["photos_per_second"] > 0
    assert min(rate["thirds"]) > 0
    assert 0 < rate["cpu_ms_per_photo"] * rate["photos_per_second"] < 1e3 * (os.cpu_count() or 1) * 1.1
    assert sum(rate["thirds"]) / 3 == pytest.approx(rate["photos_per_second"], abs=0.01)


def test_the_command_prints_json_with_single_photo_and_best_throughput(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "reports" / "roofline.json"
    options = ["--seconds", "0.6", "--batch", "1,4", "--threads", "2", "--photo-count", "8", "--out", str(out)]
    assert main(["bench", "roofline", "--artifacts", str(artifacts), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads(out.read_text())
    assert [(s["design"], s["batch"]) for s in result["sweep"]] == [
        (design, batch) for design in ("workers", "pipeline") for batch in (1, 4)
    ]
    single, best = result["single_photo"], result["throughput"]
    assert 0 < single["p50"] <= single["p90"] <= single["p99"] <= single["max"]
    assert single["p50"] == min(s["p50"] for s in result["single_photo_by_threads"])
    # Two threads in saturation are not far below one in turn, however busy the machine.
    assert best["photos_per_second"] > 0.2 * 1000 / single["mean"]
    assert result["machine"]["cores"] >= 1


def test_a_model_that_is_not_there_is_one_line_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "roofline", "--artifacts", str(tmp_path), "--seconds", "0.6"]) == 1
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--batch", "0"], ["--batch", "1,x"], ["--seconds", "0"], ["--threads", "-1"]])
def test_wrong_usage_is_exit_code_2(tmp_path: Path, options: list[str]) -> None:
    assert main(["bench", "roofline", "--artifacts", str(tmp_path), *options]) == 2
