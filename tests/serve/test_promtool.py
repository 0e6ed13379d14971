"""Prometheus itself reads the metrics page and finds nothing to complain of."""

from __future__ import annotations

import shutil
import subprocess

import pytest


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_accepts_the_metrics_page(server, photos):
    assert server.predict(photos[0])["ok"]
    status, page = server.probe("metrics")
    assert status == 200
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
