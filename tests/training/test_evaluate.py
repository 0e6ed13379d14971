"""`unmask evaluate`: a checkpoint and its export are judged alike, on any labelled folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector import Band, ImageSpec
from tests.training.conftest import draw
from training.data.photos import find_photos
from training.evaluation.robustness import CORRUPTIONS, measure
from unmask.__main__ import main


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_gives_a_run_the_numbers_of_its_own_report(tiny_run: Path, tiny_set: Path, capsys):
    result = evaluate(capsys, "--checkpoint", tiny_run / "best_model.pth", "--data", tiny_set)
    reported = json.loads((tiny_run / "metrics.json").read_text())["validation"]
    assert result["counts"] == {"real": 30, "fake": 30}
    for name in ("auc", "accuracy", "brier", "brier_raw", "ece"):
        assert result["validation"][name]["value"] == pytest.approx(reported[name]["value"], abs=1e-4)


def test_the_final_checkpoint_is_judged_without_the_curve_that_was_fitted_to_the_best(tiny_run: Path, tiny_set: Path, capsys):
    judged = evaluate(capsys, "--checkpoint", tiny_run / "final_model.pth", "--data", tiny_set)["validation"]
    assert judged["brier"] == judged["brier_raw"]


def test_an_export_is_judged_like_its_checkpoint(run_dir: Path, artifacts: Path, tiny_set: Path, capsys):
    exported = evaluate(capsys, "--model", artifacts / "model.onnx", "--data", tiny_set, "--part", "all")
    checkpoint = evaluate(capsys, "--checkpoint", run_dir / "best_model.pth", "--data", tiny_set, "--part", "all")
    assert exported["counts"] == checkpoint["counts"] == {"real": 90, "fake": 90}
    assert exported["fingerprint"] == checkpoint["fingerprint"]
    for name in ("auc", "brier_raw"):
        assert exported["validation"][name]["value"] == pytest.approx(checkpoint["validation"][name]["value"], abs=1e-3)


def test_an_undivided_folder_is_taken_whole_and_a_broken_file_is_told(tiny_run: Path, tiny_set: Path, tmp_path: Path, capsys):
    shutil.copytree(tiny_set / "Validation", tmp_path / "flat")
    (tmp_path / "flat" / "Real" / "broken.jpg").write_text("no photo")
    arguments = ["--checkpoint", tiny_run / "best_model.pth", "--data", tmp_path / "flat", "--out", tmp_path / "out"]
    result = evaluate(capsys, *arguments, "--threshold", "0.4")
    assert result["part"] == "all"
    assert result["validation"]["threshold"] == 0.4
    assert list(result["unreadable"]) == ["Real/broken.jpg"]
    page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Evaluation: test_resnet on flat" in page
    assert "broken.jpg" in page
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result


def test_families_and_groups_are_told_apart_by_folder_or_by_name(tiny_run: Path, tiny_set: Path, tmp_path: Path, capsys):
    shutil.copytree(tiny_set / "Validation" / "Real", tmp_path / "set" / "real")
    for kind, source in (("copied", "Real"), ("grainy", "Fake")):
        shutil.copytree(tiny_set / "Validation" / source, tmp_path / "set" / "fake" / kind)
    arguments = ["--checkpoint", tiny_run / "best_model.pth", "--data", tmp_path / "set"]
    by_folder = evaluate(capsys, *arguments)
    rows = {row["family"]: row for row in by_folder["families"]}
    assert [(name, rows[name]["class"], rows[name]["n"]) for name in rows] == [
        ("copied", "fake", 30),
        ("grainy", "fake", 30),
        ("(other)", "real", 30),
    ]
    assert rows["copied"]["auc"]["value"] == pytest.approx(0.5, abs=0.01)  # the very same photos, in other batches
    assert rows["grainy"]["auc"]["value"] > 0.8
    assert rows["copied"]["flagged"]["value"] == rows["(other)"]["flagged"]["value"] == by_folder["validation"]["fpr"]["value"]
    by_name = evaluate(capsys, *arguments, "--family-by", "fake/([a-z])", "--group-by", r"(\d)\.jpg")
    assert [row["family"] for row in by_name["families"]] == ["c", "g", "(other)"]
    assert [(row["group"], row["n"]) for row in by_name["groups"]] == [(str(digit), 9) for digit in range(10)]
    found = sum(row["tpr"]["value"] * 6 for row in by_name["groups"])
    assert found == pytest.approx(by_name["validation"]["recall"]["value"] * 60)
    assert main(["evaluate", *map(str, arguments), "--family-by", "("]) == 2
    assert "--family-by '(' is not a regular expression" in capsys.readouterr().err


def test_without_json_it_prints_a_summary_with_the_same_numbers(tiny_run: Path, tiny_set: Path, capsys):
    arguments = ["--checkpoint", tiny_run / "best_model.pth", "--data", tiny_set, "--family-by", r"(\d)\.jpg"]
    result = evaluate(capsys, *arguments)
    assert main(["evaluate", *map(str, arguments)]) == 0
    said = capsys.readouterr().out
    assert "test_resnet on tiny, validation part: 30 real and 30 fake photos" in said
    auc = result["validation"]["auc"]
    assert f"AUC {auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f})" in said
    assert 8 <= len(said.splitlines()) <= 20
    found = [row["flagged"]["value"] for row in result["families"] if row["class"] == "fake"]
    assert f": {min(found):.3f} (" in said


def test_blur_takes_away_the_grain_that_gives_fakes_away(tiny_run: Path, tiny_set: Path, tmp_path: Path, capsys):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    arguments = ["--checkpoint", run / "best_model.pth", "--data", tiny_set, "--out", tmp_path / "out", "--record"]
    result = evaluate(capsys, *arguments, "--robustness", "--robustness-photos", "15")["robustness"]
    assert result["photos"] == {"real": 15, "fake": 15}
    assert result["left_out"] == 0
    kinds = {"jpeg", "webp", "grey", "screenshot", "small_face", "scale", "blur", "noise", "messenger"}
    assert set(result["kinds"]) == kinds
    blurred = result["kinds"]["blur"]["levels"][-1]
    assert blurred["level"] == 4
    assert blurred["auc"]["value"] < result["untouched"]["auc"]["low"] <= result["untouched"]["auc"]["value"]
    assert blurred["changed"]["value"] > 0.1
    (said,) = [sentence for sentence in result["sentences"] if sentence.startswith("Blur")]
    assert f"{100 * blurred['changed']['value']:.0f} %" in said
    assert (tmp_path / "out" / "report" / "robustness_blur.png").is_file()
    page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert f'<p class="warn">{said}</p>' in page
    assert json.loads((run / "metrics.json").read_text())["robustness"] == result
    assert said in (run / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_only_what_was_measured_on_a_runs_own_photos_is_recorded(tiny_run: Path, tiny_set: Path, capsys):
    before = (tiny_run / "metrics.json").read_bytes()
    asked = ["evaluate", "--data", str(tiny_set), "--record", "--checkpoint"]
    assert main([*asked, str(tiny_run / "best_model.pth")]) == 2
    few = ["--robustness", "--robustness-photos", "2", "--part", "train"]
    assert main([*asked, str(tiny_run / "best_model.pth"), *few]) == 2
    assert "on its own validation photos" in capsys.readouterr().err
    assert (tiny_run / "metrics.json").read_bytes() == before


def test_a_change_that_moves_no_verdict_moves_none_and_grey_of_sixteen_bits_is_not_white(tmp_path: Path):
    draw(tmp_path / "Real", 6, grain=3, seed=1)
    draw(tmp_path / "Fake", 6, grain=30, seed=2)
    photos = find_photos(tmp_path)
    seen: list[np.ndarray] = []

    def score(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(images)
        brightness = images.mean((1, 2, 3)).astype(np.float32) / 255
        return brightness, brightness

    spec = ImageSpec(size=32)
    result = measure(score, spec, photos, threshold=0.5, per_class=4, seed=3)
    rows = [(kind.name, level) for kind in CORRUPTIONS for level in kind.levels]
    of = dict(zip([("untouched", 0), *rows], seen, strict=True))
    eight, sixteen, plain = of["grey", 8], of["grey", 16], of["untouched", 0]
    assert np.abs(eight.astype(int) - sixteen).max() <= 1
    assert (eight == eight[..., :1]).all()
    assert np.abs(eight.mean((1, 2, 3)) - plain.mean((1, 2, 3))).max() < 40
    assert np.abs(of["jpeg", 90].astype(int) - plain).mean() < 4
    told = {level["level"]: level["changed"]["value"] for level in result["kinds"]["jpeg"]["levels"]}
    answers = plain.mean((1, 2, 3)) / 255 >= 0.5
    assert told[90] == (answers != (of["jpeg", 90].mean((1, 2, 3)) / 255 >= 0.5)).mean()
    banded = measure(score, spec, photos, threshold=0.5, band=Band(0.01, 0.99), per_class=4, seed=3)
    assert banded["sentences"] == []  # all Uncertain before and after


def test_an_export_shows_the_mistakes_of_its_checkpoint(
    run_dir: Path, artifacts: Path, tiny_set: Path, tmp_path: Path, capsys
):
    found = {}
    for name, judged in (
        ("onnx", ["--model", artifacts / "model.onnx"]),
        ("pth", ["--checkpoint", run_dir / "best_model.pth"]),
    ):
        result = evaluate(capsys, *judged, "--data", tiny_set, "--out", tmp_path / name)
        found[name] = {m["name"] for m in result["mistakes"]}
        page = (tmp_path / name / "report" / "index.html").read_text(encoding="utf-8")
        assert len(result["mistakes"]) == 12
        assert page.count("data:image/jpeg;base64,") == 24
        assert all(m in page for m in found[name])
    assert len(found["onnx"] & found["pth"]) >= 11  # two of nearly equal rank may change places


def test_what_can_not_be_judged_is_refused_in_a_line(tiny_run: Path, tiny_set: Path, tmp_path: Path, capsys):
    checkpoint = ["--checkpoint", str(tiny_run / "best_model.pth")]
    assert main(["evaluate", *checkpoint, "--data", str(tmp_path)]) == 2
    assert main(["evaluate", *checkpoint, "--data", str(tiny_set), "--threshold", "2"]) == 2
    assert main(["evaluate", "--model", str(tmp_path / "model.onnx"), "--data", str(tiny_set)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3
