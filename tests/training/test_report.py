"""The report page."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from training.report import write_report


def test_the_page_needs_nothing_else_and_shows_every_plot(tiny_run: Path) -> None:
    page = (tiny_run / "report" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href|srcset)="(?!data:image/png;base64,)', page)
    inlined = [b64decode(code) for code in re.findall(r'src="data:image/png;base64,([^"]+)"', page)]
    files = {p.name: p.read_bytes() for p in (tiny_run / "report").glob("*.png")}
    assert set(files) == {"loss.png", "auc.png", "roc.png", "confusion.png", "reliability.png"}
    assert set(inlined) == set(files.values())
    for png in inlined:
        Image.open(BytesIO(png)).verify()


def test_the_page_says_the_numbers_their_intervals_and_how_photos_were_divided(tiny_run: Path) -> None:
    page = (tiny_run / "report" / "index.html").read_text(encoding="utf-8")
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    for name in ("auc", "average_precision", "accuracy", "f1", "brier", "brier_raw", "log_loss", "ece", "ece_raw"):
        value = metrics["validation"][name]
        assert f"{value['value']:.3f} <span>({value['low']:.3f}–{value['high']:.3f})</span>" in page
    assert "nothing was chosen or fitted with them" in page
    assert metrics["fingerprint"] in page
    assert 'name="viewport"' in page


def test_names_of_files_cannot_write_into_the_page(tiny_run: Path, tmp_path: Path) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    metrics["unreadable"] = {"real/<script>alert(1)</script>.jpg": "damaged"}
    scores = np.linspace(0, 1, 10, dtype=np.float32)
    page = write_report(tmp_path, metrics, np.arange(10) % 2, scores, scores).read_text(encoding="utf-8")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
