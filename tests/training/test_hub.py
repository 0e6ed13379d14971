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
from huggingface_hub import ModelCard
from safetensors.torch import load

from tests.training.conftest import TINY
from tests.training.hub_server import Hub, running_hub
from training.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
NAME = "a-team/detector"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """An empty hub."""
    with running_hub() as hub:
        yield hub


def _training(hub: Hub, home: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    # A process of its own: huggingface_hub reads its variables when it is imported.
    return subprocess.run(
        [sys.executable, "-m", "unmask", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", **hub.environment(home), **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_push_sends_weights_calibration_metrics_and_card_in_one_commit_and_no_place_of_this_machine(
    hub: Hub, tiny_run: Path, tmp_path: Path
) -> None:
    done = _training(hub, tmp_path, "push", tiny_run, NAME)
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
    again = _training(hub, tmp_path, "push", tiny_run, NAME)  # the repository is there by now
    assert again.returncode == 0, again.stderr
    assert hub.commits[NAME] == 2


def test_the_card_reads_as_the_hub_reads_it(hub: Hub, tiny_run: Path, tmp_path: Path) -> None:
    assert _training(hub, tmp_path, "push", tiny_run, NAME, "--public").returncode == 0
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


def test_training_starts_from_pushed_weights(hub: Hub, tiny_run: Path, tiny_set: Path, tmp_path: Path) -> None:
    assert _training(hub, tmp_path / "a", "push", tiny_run, NAME).returncode == 0
    flags = [flag for flag in TINY if flag != "--no-pretrained"]
    fit = ("train", "--data", tiny_set, "--epochs", 1, "--zero_grad_every_n", 1, *flags)  # no update: weights stay as fetched
    done = _training(hub, tmp_path / "b", *fit, "--out", tmp_path / "run", "--weights", f"hf://{NAME}")
    assert done.returncode == 0, done.stderr
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
    hub: Hub, tiny_set: Path, tmp_path: Path, address: str, words: str
) -> None:
    hub.files["a-team/empty"] = {}
    done = _training(hub, tmp_path, "train", "--data", tiny_set, "--out", tmp_path / "run", "--weights", address)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_what_can_not_be_pushed_is_refused_with_the_reason(hub: Hub, tiny_run: Path, tmp_path: Path) -> None:
    wrong = _training(hub, tmp_path, "push", tiny_run, NAME, HF_TOKEN="hf_expired")
    assert wrong.returncode == 1
    assert "the hub answered 401; set HF_TOKEN" in wrong.stderr
    unfinished = shutil.copytree(tiny_run, tmp_path / "unfinished")
    (unfinished / "metrics.json").unlink()
    refused = _training(hub, tmp_path, "push", unfinished, NAME)
    assert refused.returncode == 1
    assert "holds no metrics.json" in refused.stderr
    assert NAME not in hub.files
