"""The report page."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from detector.display.overlay import overlaid
from tests.training.conftest import TINY, fit
from training.evaluation.mistakes import Mistake, worst
from training.report.report import write_report
from training.report.summary import summary
from unmask.__main__ import main


def test_the_page_needs_nothing_else_and_shows_every_plot(tiny_run: Path) -> None:
    page = (tiny_run / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href|srcset)="(?!data:image/(?:png|jpeg);base64,)', page)
    inlined = [b64decode(code) for code in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    files = {p.name: p.read_bytes() for p in (tiny_run / "report").glob("*.png")}
    assert set(files) == {
        f"{name}.png" for name in ("loss", "auc", "roc", "pr", "confusion", "reliability", "scores_raw", "scores")
    }
    assert set(inlined) == set(files.values())
    for png in inlined:
        Image.open(BytesIO(png)).verify()


def test_the_page_says_the_numbers_their_intervals_and_how_photos_were_divided(tiny_run: Path) -> None:
    page = (tiny_run / "report" / "index.html").read_text(encoding="utf-8")
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    ranked = ("auc", "average_precision", "eer", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001")
    decided = ("accuracy", "precision", "recall", "f1", "fpr")
    said = ("brier", "brier_raw", "log_loss", "log_loss_raw", "ece", "ece_raw", "smooth_ece", "smooth_ece_raw")
    for name in (*ranked, *decided, *said):
        value = metrics["validation"][name]
        assert f"{value['value']:.3f} <span>({value['low']:.3f}–{value['high']:.3f})</span>" in page
    assert "nothing was chosen or fitted with them" in page
    assert metrics["fingerprint"] in page
    assert 'name="viewport"' in page


def test_every_calibration_method_is_compared_on_photos_that_none_was_fitted_on(tiny_run: Path) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    compared = metrics["calibrations"]
    assert set(compared) == {"none", "platt", "temperature", "beta"}  # twelve photos are too few for isotonic
    for name in ("brier", "log_loss", "ece", "smooth_ece"):
        assert compared["platt"][name] == metrics["validation"][name]
        assert compared["none"][name] == metrics["validation"][f"{name}_raw"]
    page = (tiny_run / "report" / "index.html").read_text(encoding="utf-8")
    assert '<tr class="chosen"><td>platt</td>' in page


def test_a_run_with_faults_carries_a_banner_and_what_others_measured_is_shown(tiny_run: Path, tmp_path: Path) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert 'role="alert"' not in (tiny_run / "report" / "index.html").read_text()
    metrics |= {
        "faults": {"faulty_mode": "label_noise", "flipped": 19},
        "audit": {"shortcuts": {"file_size": {"value": 0.81, "low": 0.7, "high": 0.9}}, "copies": ["a.jpg"]},
        "pseudo_fakes": "Half of the fakes were blended.",
    }
    scores = np.linspace(0, 1, 10, dtype=np.float32)
    page = write_report(tmp_path, metrics, np.arange(10) % 2, scores, scores).read_text(encoding="utf-8")
    banner = page[page.index('role="alert"') :]
    assert "<li>faulty mode: label_noise</li><li>flipped: 19</li>" in banner
    assert "<td>shortcuts · file size</td><td>0.810 (0.700–0.900)</td>" in page
    assert "Half of the fakes were blended." in page


def test_a_run_without_training_has_a_report_too(tiny_run: Path, tmp_path: Path) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    del metrics["history"], metrics["best_epoch"]
    metrics["arguments"] |= {"model": "ensemble", "members": ["run-a", "run-b"]}
    metrics["speed"] |= {"epochs": []}
    scores = np.linspace(0, 1, 10, dtype=np.float32)
    page = write_report(tmp_path, metrics, np.arange(10) % 2, scores, scores).read_text(encoding="utf-8")
    assert "<h1>Report: ensemble</h1>" in page
    assert "run-a, run-b" in page
    assert "fitted on" in page


def test_the_worst_mistakes_come_first_and_their_map_lies_over_them() -> None:
    labels, p = np.array([0, 0, 1, 1, 0]), np.array([0.9, 0.6, 0.05, 0.7, 0.2])
    assert list(worst(labels, p, p, 0.5)) == [2, 0, 1]
    photo, heat = np.full((8, 8, 3), 128, np.uint8), np.zeros((2, 2), np.float32)
    heat[0, 0], heat[1, 1] = 2, -1
    shown = overlaid(photo, heat).astype(int)
    assert shown[0, 0, 0] - shown[0, 0, 2] > 80  # orange where it speaks for fake
    assert 20 < shown[7, 7, 2] - shown[7, 7, 0] < 80  # blue, and weaker, where it speaks for real


def test_names_of_files_cannot_write_into_the_page(tiny_run: Path, tmp_path: Path) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    metrics["unreadable"] = {"real/<script>alert(1)</script>.jpg": "damaged"}
    scores = np.linspace(0, 1, 10, dtype=np.float32)
    page = write_report(tmp_path, metrics, np.arange(10) % 2, scores, scores).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_summary_names_no_command_that_would_be_refused(tiny_run: Path) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert summary(metrics, Path("my run")).endswith("next:   unmask export --run 'my run' --out artifacts/")
    said = summary(metrics | {"faults": {"faulty_mode": "wrong_loss"}}, tiny_run)
    assert said.endswith("--allow-faulty")
    assert "faults were injected" in said


def test_a_mistake_is_shown_with_the_confidence_of_what_was_said() -> None:
    assert [Mistake("a", label, 0.2, 0.25, b"", b"").to_dict()["confidence"] for label in (1, 0)] == [0.75, 0.25]


def test_a_run_without_a_report_gets_one_when_it_is_calibrated_again(tiny_set: Path, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    assert fit("--data", tiny_set, "--out", run, "--epochs", 1, *TINY, report=False) == 0
    assert not (run / "report").exists()
    assert "report:" not in capsys.readouterr().out
    assert main(["calibrate", "--run", str(run), "--data", str(tiny_set)]) == 0
    assert (run / "report" / "index.html").is_file()
    assert f"report: {run / 'report' / 'index.html'}" in capsys.readouterr().out
