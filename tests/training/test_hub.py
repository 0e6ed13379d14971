"""The Hugging Face hub, against a stand-in of its HTTP API: what a push sends, and that its weights come back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load

from tests.training.conftest import TINY, fit
from tests.training.hub_server import TOKEN, Hub, running_hub
from training.models.checkpoint import load_checkpoint
from unmask.__main__ import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAME = "a-team/detector"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty hub."""
    with running_hub() as hub:
        yield hub


@pytest.fixture
def connected(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """An empty hub that this process's huggingface_hub talks to, with a cache of its own."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return hub


def _command(hub: Hub, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unmask", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **hub.environment(home)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_a_push_sends_weights_calibration_metrics_and_card_in_one_commit_and_no_place_of_this_machine(
    hub: Hub, tiny_run: Path, tmp_path: Path
) -> None:
    done = _command(hub, tmp_path, "push", tiny_run, NAME)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.address}/{NAME}/commit/{'0' * 40}"
    files = hub.files[NAME]
    assert set(files) == {"model.safetensors", "config.json", "metrics.json", "README.md"}
    assert hub.commits[NAME] == 1
    assert hub.private[NAME]
    weights = load_checkpoint(tiny_run / "best_model.pth").weights
    sent = load(files["model.safetensors"])
    assert all(torch.equal(sent[k], v) for k, v in weights.items())
    config = json.loads(files["config.json"])
    assert config["image_spec"]["size"] == 32
    assert config["calibration"]["y"] == json.loads((tiny_run / "calibration.json").read_text())["y"]
    assert str(tiny_run.parent).encode() not in b"".join(files.values())


def test_a_second_push_is_a_second_commit_and_its_card_reads_as_the_hub_reads_it(connected: Hub, tiny_run: Path) -> None:
    hub = connected
    assert main(["push", str(tiny_run), NAME, "--public"]) == 0
    assert main(["push", str(tiny_run), NAME, "--public"]) == 0  # the repository is there by now
    assert hub.commits[NAME] == 2
    assert not hub.private[NAME]
    card = ModelCard(hub.files[NAME]["README.md"].decode())
    card.data.to_yaml()
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results["roc_auc"] == pytest.approx(metrics["validation"]["auc"]["value"], abs=1e-4)
    assert card.data.pipeline_tag == "image-classification"
    low, high = (metrics["validation"]["auc"][k] for k in ("low", "high"))
    assert f"| {low:.3f}–{high:.3f} |" in card.text
    for section in ("## Uses", "## Training data", "## How it does", "## Limits"):
        assert section in card.text


def test_training_starts_from_pushed_weights(connected: Hub, tiny_run: Path, tiny_set: Path, tmp_path: Path) -> None:
    assert main(["push", str(tiny_run), NAME]) == 0
    flags = [flag for flag in TINY if flag != "--no-pretrained"]
    # Without an update the weights stay as they were fetched.
    arguments = ["--data", tiny_set, "--out", tmp_path / "run", "--epochs", 1, "--zero_grad_every_n", 1, *flags]
    assert fit(*arguments, "--weights", f"hf://{NAME}") == 0
    before, after = (load_checkpoint(run / "best_model.pth").weights for run in (tiny_run, tmp_path / "run"))
    learned = [k for k in before if k.startswith("features.") and "running_" not in k and "num_batches" not in k]
    assert learned
    assert all(torch.equal(before[k], after[k]) for k in learned)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("hf://nobody/nothing", "there is no such repository"),
        ("hf://a-team/empty", "has no model.safetensors"),
        ("hf://one-word", "expected hf://org/repo"),
    ],
)
def test_weights_that_the_hub_does_not_have_are_refused_in_a_line(
    connected: Hub, tiny_set: Path, tmp_path: Path, address: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    connected.files["a-team/empty"] = {}
    assert fit("--data", tiny_set, "--out", tmp_path / "run", "--weights", address) in (1, 2)
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_hub_that_does_not_answer_is_said_as_such_without_a_second_try(
    connected: Hub, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    assert fit("--data", tiny_set, "--out", tmp_path / "run", "--weights", f"hf://{NAME}") == 1
    said = capsys.readouterr().err
    assert "the hub at http://127.0.0.1:9 can't be reached, and no copy is cached here" in said
    assert "[hub_unreachable]" in said
    assert len(said.splitlines()) == 1, "huggingface_hub says a line for each of its tries"
    assert constants.HF_HUB_OFFLINE is False


def test_what_can_not_be_pushed_is_refused_with_the_reason(
    connected: Hub, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished = shutil.copytree(tiny_run, tmp_path / "unfinished")
    (unfinished / "metrics.json").unlink()
    assert main(["push", str(unfinished), NAME]) == 1
    assert "metrics.json: no such file; a finished `unmask train` writes it" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert main(["push", str(tiny_run), NAME]) == 1
    assert "the hub answered 401; set HF_TOKEN" in capsys.readouterr().err
    assert NAME not in connected.files
