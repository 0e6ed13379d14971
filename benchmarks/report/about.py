"""What a benchmark measured, and on what: commit, model, command and machine."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.load.process import ROOT
from benchmarks.machine import machine
from detector.files import shown
from detector.scorer import MANIFEST


def about(artifacts: Path | None) -> dict[str, Any]:
    """JSON values; what is not known is left out."""
    values = {
        "commit": commit(),
        "command": shlex.join(["unmask", *map(shown, sys.argv[1:])]),
        "manifest_sha256": _sha256(artifacts / MANIFEST) if artifacts else None,
        "machine": machine()["label"],
    }
    return {key: value for key, value in values.items() if value}


def commit(folder: Path = ROOT) -> str | None:
    """The commit that is checked out, with "+" when files are changed; None where there is no git or no checkout."""
    try:
        found = _git(folder, "rev-parse", "--show-toplevel", "HEAD").split("\n")
        if Path(found[0]).resolve() != folder.resolve():  # installed inside some other project's checkout
            return None
        return found[1] + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def _sha256(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
