"""The fuzzer of `make fuzz` runs, and finds nothing at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def test_the_fuzzer_starts_from_drawn_photos_and_finds_nothing_in_a_second(tmp_path):
    pytest.importorskip("atheris", reason="atheris has wheels for Linux on x86-64 with Python 3.11 and later")
    # libFuzzer takes ru_maxrss for its use of memory, and a process begun by vfork and exec starts with its parent's, which
    # may be over the limit here. The shell forks and is small, so what it starts counts from next to nothing.
    apart = ["sh", "-c", '"$@"; exit $?', "sh"]
    command = [*apart, sys.executable, "-m", "tests.fuzz_decode", "--seconds", "1", "--out", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done" in done.stderr
    assert len(list((tmp_path / "seeds").iterdir())) > 100
    assert len(list((tmp_path / "corpus").iterdir())) > 30
    assert list((tmp_path / "found").iterdir()) == []
