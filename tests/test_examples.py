"""The examples of the README and of the documentation run as they stand.

Each block that is marked `sh` or `python` is run, in its page's order and in one folder, or a comment above it says why not.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from detector import Manifest
from detector.scorer import Scorer
from detector.tolerance import LOGIT, disagreement
from serve.record import find_record
from tests.conftest import ROOT
from tests.shell import environment
from unmask.registry import build

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>.+?) -->\n)?^ *```(?P<language>[\w-]*)\n(?P<code>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
RUN = ("sh", "python")
SHOWN = ("text", "json", "yaml")
# Run below. What the others show needs a cluster, a GPU, other weights or hours.
RUN_PAGES = ("README.md", "docs/tutorial.md", "docs/how-to/call.md", "docs/how-to/export.md", "docs/how-to/score.md")
RUN_ELSEWHERE = ("docs/runbook.md",)  # by the fault matrix, tests/faults


@dataclass(frozen=True)
class Block:
    """One block. reason: why it is not run, or empty. expected: the JSON that the page shows as its answer, or None."""

    where: str
    language: str
    code: str
    reason: str
    expected: dict[str, Any] | None = None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    result = []
    for i, match in enumerate(found):
        line = text.count("\n", 0, match.start("code"))
        after = found[i + 1] if i + 1 < len(found) and not text[match.end() : found[i + 1].start()].strip() else None
        expected = json.loads(after["code"]) if after and after["language"] == "json" else None
        where = f"{page.relative_to(ROOT)}:{line}"
        result.append(Block(where, match["language"], match["code"], match["reason"] or "", expected))
    return result


class Folder:
    """A folder to run a page's blocks in, with `unmask` on the path and a server's state folder of its own."""

    def __init__(self, path: Path, state: Path) -> None:
        self.path, self.state = path, state
        self.environment = environment(path, state)

    def run(self, page: Path) -> list[str]:
        """What each block that is run prints; the JSON that a page shows has the keys of the answer."""
        printed = []
        for block in blocks(page):
            if block.language not in RUN or block.reason:
                continue
            command = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
            result = subprocess.run(
                [*command, self._here(block.code)],
                cwd=self.path,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=600,  # a hang ends
                check=False,
            )
            assert result.returncode == 0, f"{block.where}\n{block.code}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}"
            if block.expected is not None:
                answer = json.loads(result.stdout)
                assert keys(answer) == keys(block.expected), block.where
                assert answer.get("error") == block.expected.get("error"), block.where
            printed.append(result.stdout)
        return printed

    def _here(self, code: str) -> str:
        """The code with the ports that the server has."""
        record = find_record(self.state)
        ports = {"8080": "rest_port", "7070": "grpc_port", "8090": "supervisor_port"}
        for default, name in ports.items() if record else ():
            code = code.replace(f"127.0.0.1:{default}", f"127.0.0.1:{record.ports[name]}")
        return code


def keys(answer: Any) -> Any:
    """The keys of JSON, and those of the objects in it."""
    return {key: keys(value) for key, value in answer.items()} if isinstance(answer, dict) else None


@pytest.fixture
def folder(artifacts: Path, run_dir: Path, photos: list[bytes], server, tmp_path: Path) -> Folder:
    """What a page supposes: a run, its artifacts, labelled photos, a face and a server that runs."""
    shutil.copytree(run_dir, tmp_path / "run")
    shutil.copytree(artifacts, tmp_path / "artifacts")
    for i, photo in enumerate(photos[:8]):
        path = tmp_path / "photos" / "Validation" / ("Real", "Fake")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photo)
    (tmp_path / "face.jpg").write_bytes(photos[0])
    (tmp_path / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    return Folder(tmp_path, server.state)


@pytest.fixture
def beginners_folder(tmp_path: Path) -> Iterator[Folder]:
    """An empty folder, where servers take free ports; one that is left behind is stopped."""
    folder = Folder(tmp_path, tmp_path / "state")
    ports = ("REST", "GRPC", "SUPERVISOR", "MANAGEMENT", "METRICS", "GRPC_MANAGEMENT")
    folder.environment |= {f"UNMASK_{name}_PORT": "0" for name in ports} | {"UNMASK_WARM_UP_CONNECTIONS": "1"}
    yield folder
    stop = [sys.executable, "-m", "unmask", "serve", "stop"]
    subprocess.run(stop, cwd=ROOT, env=folder.environment, capture_output=True, timeout=120, check=False)


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@needs_curl
def test_the_examples_of_the_readme_run(folder, artifacts, photos):
    expected = Scorer(artifacts / "model.onnx").score(photos[0])
    printed = folder.run(ROOT / "README.md")
    answers = [json.loads(text) for text in printed if text.startswith(chr(123)) and json.loads(text)["ok"]]
    assert len(answers) == 2  # over REST and over gRPC
    for answer in answers:
        assert answer["prediction"] == expected.prediction
        assert not disagreement(answer["logit"], expected.logit, LOGIT)
    assert f"{expected.prediction} {100 * expected.confidence:.1f} %\n" in printed


@needs_curl
@pytest.mark.parametrize("page", ["call", "export", "score"])
def test_the_examples_of_a_how_to_page_run(folder, page):
    assert folder.run(ROOT / "docs" / "how-to" / f"{page}.md")


@needs_curl
@pytest.mark.serve
@pytest.mark.slow
def test_the_tutorial_leads_from_photos_to_a_verdict(beginners_folder):
    printed = beginners_folder.run(ROOT / "docs" / "tutorial.md")
    assert "no leaks" in printed[1]
    *_, last = printed
    prediction, confidence, _ = last.split()
    assert prediction in ("Real", "Fake")
    assert 0 <= float(confidence) <= 100
    assert Manifest.load(beginners_folder.path / "artifacts" / "manifest.json").model.backbone == "test_resnet"
    rows = (beginners_folder.path / "verdicts.csv").read_text().splitlines()
    assert len(rows) == 1 + len(list((beginners_folder.path / "photos" / "Validation").rglob("*.jpg")))


@pytest.mark.parametrize("photos", ["drawn", "photographed"])
def test_the_demos_options_are_ones_that_training_takes(photos, tmp_path):
    script = (ROOT / "demo.sh").read_text(encoding="utf-8")
    options = {
        name: shlex.split(words) for name, words in re.findall(r"^(\w+)=\((--.*?)\)$", script, re.MULTILINE | re.DOTALL)
    }
    command = ["train", "--data", str(tmp_path), *options["fit"], *options[photos]]
    _, bound, _ = build().parse_args(command, exit_on_error=False, print_error=False)
    assert bound.arguments["options"].model == "efficientnet_lite0"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_says_what_it_is_and_is_run_where_it_can_be(page):
    for block in blocks(page):
        assert block.language in (*RUN, *SHOWN), block.where
        run = str(page.relative_to(ROOT)) in (*RUN_PAGES, *RUN_ELSEWHERE)
        assert block.language not in RUN or block.reason or run, f"{block.where}: a page that is not run has sh or python"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_linked_file_exists(page):
    generated = re.compile(r"reference/(commands/\w+|settings|metrics|errors|calibration|python)\.md$")
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        target = (page.parent / link).resolve()
        assert target.exists() or (page.name != "README.md" and generated.search(str(target))), link
