"""The Pythons that this project is for, by `requires-python` in pyproject.toml, which is the one place that says so.

`interpreters.py --check` fails when it is run by another one. Without arguments it prints `3.X=PATH` for each supported
version that is found here, and on stderr a line for each that is not. It runs before anything is installed, and on
an old Python too, to say so: no annotations.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path


def supported():
    """Every version from the first to the last one allowed."""
    text = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    found = re.search(r'^requires-python = ">=3\.(\d+),<3\.(\d+)"$', text, re.MULTILINE)
    if found is None:
        sys.exit('error: pyproject.toml has no line requires-python = ">=3.A,<3.B"')
    return [(3, minor) for minor in range(int(found[1]), int(found[2]))]


def find(version):
    """Where that Python is: on the path, or among pyenv's, whose command on the path works only where it is selected."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (shutil.which(f"python{version}"), *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def main():
    """Check this interpreter, or list those that are here."""
    versions = supported()
    if sys.argv[1:] == ["--check"]:
        if sys.version_info[:2] not in versions:
            first, last = (".".join(map(str, versions[i])) for i in (0, -1))
            here = ".".join(map(str, sys.version_info[:2]))
            sys.exit(f"error: Python {first} to {last} is needed and this is {here}; name one with PYTHON=...")
        return
    for version in (".".join(map(str, v)) for v in versions):
        path = find(version)
        if path:
            print(f"{version}={path}")
        else:
            print(f"Python {version} is not installed here: skipped", file=sys.stderr)


if __name__ == "__main__":
    main()
