"""A real browser opens a run's report from its file without a complaint on its console."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no browser is installed (Debian: chromium)")
def test_the_report_opens_without_a_complaint(tiny_run: Path, tmp_path: Path) -> None:
    page = tiny_run / "report" / "index.html"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--enable-logging=stderr", "--v=0"]
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND"
    command = [CHROMIUM, *flags, nowhere, "--virtual-time-budget=2000", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert "</html>" in done.stdout
