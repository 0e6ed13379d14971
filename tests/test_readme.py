"""The README's examples run as they stand, against the artifacts and the server of this test run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from detector import Manifest
from detector.scorer import Scorer
from detector.tolerance import LOGIT, disagreement
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CURL = re.findall(r"^curl .*$", README, re.MULTILINE)


@pytest.fixture
def folder(artifacts: Path, photos: list[bytes], tmp_path: Path) -> Path:
    """A folder as the README supposes it: artifacts/, face.jpg and README.md."""
    (tmp_path / "artifacts").symlink_to(artifacts)
    (tmp_path / "face.jpg").write_bytes(photos[0])
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    return tmp_path


def run_python(code: str, folder: Path) -> str:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_python_examples_run(folder, artifacts, photos, server):
    grpc_example, scorer_example, pixels_example = PYTHON
    expected = Scorer(artifacts / "model.onnx").score(photos[0])
    answer = json.loads(run_python(grpc_example.replace("127.0.0.1:7070", server.record.grpc_target), folder))
    assert answer["prediction"] == expected.prediction
    assert not disagreement(answer["logit"], expected.logit, LOGIT)
    said = f"{expected.prediction} {100 * expected.confidence:.1f} %"
    assert run_python(scorer_example, folder).strip() == said
    shape = run_python(pixels_example + "print(*pixels.shape)", folder).split()
    assert tuple(map(int, shape)) == Manifest.load(artifacts / "manifest.json").image_spec.shape


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_examples_answer_in_the_documented_form(folder, server):
    documented = [json.loads(line) for line in re.findall(r"```json\n(.*?)\n```", README, re.DOTALL)]
    assert len(CURL) == len(documented) == 2
    for command, example in zip(CURL, documented, strict=True):
        url = command.replace("http://127.0.0.1:8080/predictions/detector", server.record.rest_url)
        result = subprocess.run(["curl", "-s", *shlex.split(url)[1:]], cwd=folder, capture_output=True, text=True, check=True)
        answer = json.loads(result.stdout)
        assert answer.keys() == example.keys()
        assert answer.get("error") == example.get("error")


def test_every_linked_file_exists():
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README):
        assert (ROOT / link).exists(), link
