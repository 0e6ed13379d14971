"""A folder where documentation's commands run as printed: `unmask` and `python` are this checkout's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.conftest import ROOT


def environment(folder: Path, state: Path) -> dict[str, str]:
    """Variables for commands in `folder`, with `unmask` on the path. state: of the server that they mean."""
    programs = folder / ".bin"
    programs.mkdir(parents=True)
    for name, arguments in (("unmask", "-m unmask "), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        program.chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "UNMASK_STATE": str(state),
    }
