"""Checks that a commit can be released: nothing uncommitted, and a version that the changelog describes and no tag has."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def git(*arguments: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def problems(version: str, changelog: str, uncommitted: str, tags: list[str]) -> list[str]:
    """Each reason not to release, as a sentence."""
    found = []
    if uncommitted:
        found.append(f"these files are not committed:\n{uncommitted}")
    if f"v{version}" in tags:
        found.append(f"the tag v{version} is there already; raise __version__ in unmask/__init__.py")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}$", changelog, re.MULTILINE):
        found.append(f"CHANGELOG.md has no line '## [{version}] - YYYY-MM-DD'; put it under '## [Unreleased]'")
    unreleased = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if unreleased and unreleased[1].strip():
        found.append(f"CHANGELOG.md has entries under '## [Unreleased]'; they belong under [{version}]")
    return found


def main() -> None:
    """Exit with 1 and every problem, or say that there is none."""
    from unmask import __version__

    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = problems(__version__, changelog, git("status", "--porcelain"), git("tag").splitlines())
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"{__version__} can be released from {git('rev-parse', '--short', 'HEAD')}")


if __name__ == "__main__":
    main()
