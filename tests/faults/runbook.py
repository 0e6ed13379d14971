"""The runbook as the one on call uses it: a section for each alert, and its commands in a shell on the server's machine."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from serve.record import find_record
from tests.conftest import ROOT
from tests.shell import environment

RUNBOOK = ROOT / "docs" / "runbook.md"
_SECTION = re.compile(r"^## (?P<name>Unmask\w+)\s*$(?P<text>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+?) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Section:
    """What the runbook says to one alert. commands: its `sh` blocks that run here, in order."""

    name: str
    text: str
    commands: tuple[str, ...]


def sections() -> dict[str, Section]:
    """The runbook's sections by the alert's name."""
    found = {}
    for match in _SECTION.finditer(RUNBOOK.read_text(encoding="utf-8")):
        blocks = _BLOCK.finditer(match["text"])
        commands = tuple(b["code"] for b in blocks if b["language"] == "sh" and not b["reason"])
        found[match["name"]] = Section(match["name"], match["text"], commands)
    return found


class Desk:
    """A shell where the runbook's commands run as printed.

    `unmask` is on the path; the variables say which server is meant; a port that is printed becomes the one of the server or
    of Prometheus. settings: of a server that the commands start.
    """

    def __init__(self, folder: Path, state: Path, settings: dict[str, str]) -> None:
        self.folder, self._state, self.prometheus_url = folder, state, ""
        self._environment = environment(folder, state) | settings

    def run(self, section: Section) -> str:
        """What the section's commands print, one block after another. A block that fails is an error."""
        printed = []
        for code in section.commands:
            done = self.shell(code)
            said = f"{section.name}\n$ {code}{done.stdout[-4000:]}{done.stderr[-4000:]}"
            assert done.returncode == 0, said
            printed.append(said)
        return "\n".join(printed)

    def shell(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._here(code)],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,  # a hang ends
            check=False,
        )

    def _here(self, code: str) -> str:
        record = find_record(self._state)
        ports = {"8080": "rest_port", "7070": "grpc_port", "8090": "supervisor_port"}
        for default, name in ports.items() if record else ():
            code = code.replace(f"127.0.0.1:{default}", f"127.0.0.1:{record.ports[name]}")
        return code.replace("http://127.0.0.1:9090", self.prometheus_url or "http://127.0.0.1:9090")
