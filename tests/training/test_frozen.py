"""A frozen backbone: features computed once, a head trained on them, and a checkpoint like any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from detector import ImageSpec
from detector.tolerance import LOGIT, disagreement
from tests.networks import photos
from tests.training.conftest import TINY, fit
from training.data.cache import PhotoCache
from training.data.loader import CachedPhotos, make_loader, normalise
from training.fit.evaluator import Evaluator
from training.fit.frozen import FrozenFeatures, open_features
from training.fit.loop import Trainer
from training.models.build import ModelConfig, build_model
from training.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

SPEC = ImageSpec(size=32)
CONFIG = ModelConfig("squeezenet1_1", (8,), multiscale=True, gram=(2,), zoom=2.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone's weights, drawn once."""
    torch.manual_seed(7)
    file = tmp_path_factory.mktemp("weights") / "backbone.safetensors"
    save_file(torchvision.models.squeezenet1_1(weights=None).features.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def frozen(weights: Path) -> list[object]:
    """The flags of a run whose head learns alone."""
    architecture = ("--model", "squeezenet1_1", "--multiscale", "--gram", "2", "--zoom", "2", "--weights", weights)
    flags = [f for f in TINY if f != "--no-pretrained"]
    schedule = ("--augment", "flip", "--mixup", "0.4", "--epochs", "30", "--lr", "3e-4", "--schedule", "cosine")
    return [*flags, *architecture, "--freeze-backbone", *schedule]


@pytest.fixture(scope="module")
def run(frozen: list[object], tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be written to."""
    out = tmp_path_factory.mktemp("frozen") / "run"
    assert fit("--data", tiny_set, "--out", out, *frozen) == 0
    return out


def test_features_are_those_of_each_photo_and_of_its_mirror_image_computed_once(tmp_path: Path) -> None:
    pixels = (photos(20, 32).permute(0, 2, 3, 1) * 40 + 128).clamp(0, 255).to(torch.uint8).numpy()
    np.save(tmp_path / "photos.npy", pixels)
    cache = PhotoCache(tmp_path / "photos.npy", {})
    torch.manual_seed(1)
    net = build_model(CONFIG, SPEC)
    path = open_features(net, CONFIG, cache, SPEC, torch.device("cpu"))
    source = FrozenFeatures(path, np.arange(20) % 2)
    x = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), SPEC)
    with torch.no_grad():
        straight, mirrored = net.eval().pooled(x), net.pooled(x.flip(3))
    assert not torch.allclose(straight, mirrored)
    for row in (0, 17, 19):
        for seed, wanted in ((-1, straight), (4, straight), (5, mirrored)):
            features, label, where = source[row, seed]
            assert not disagreement(features, wanted[row], LOGIT)
            assert (float(label), int(where)) == (row % 2, row)
    made = path.stat().st_mtime_ns
    assert open_features(net, CONFIG, cache, SPEC, torch.device("cpu")) == path
    assert path.stat().st_mtime_ns == made, "they are not computed again"
    with torch.no_grad():
        next(net.features.parameters()).add_(0.01)
    assert open_features(net, CONFIG, cache, SPEC, torch.device("cpu")) != path, "of other weights they are others"
    assert not list(tmp_path.glob("*.partial"))


def test_the_head_learns_and_the_backbone_stays_as_it_was(run: Path, weights: Path) -> None:
    checkpoint = load_checkpoint(run / "best_model.pth")
    given = load_file(weights)
    assert given
    for name, tensor in given.items():
        assert torch.equal(checkpoint.weights[f"features.{name}"], tensor)
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["validation"]["auc"]["low"] > 0.5, "even random features tell grain from none"
    assert metrics["history"][-1]["train_loss"] < 0.7 * metrics["history"][0]["train_loss"]
    assert checkpoint.model_config == ModelConfig("squeezenet1_1", (16,), multiscale=True, gram=(2,), zoom=2.0)
    assert metrics["arguments"]["freeze_backbone"] is True


def test_a_photo_scores_alike_from_its_features_and_from_its_pixels(tmp_path: Path) -> None:
    pixels = (photos(20, 32).permute(0, 2, 3, 1) * 40 + 128).clamp(0, 255).to(torch.uint8).numpy()
    np.save(tmp_path / "photos.npy", pixels)
    cache, labels, rows = PhotoCache(tmp_path / "photos.npy", {}), np.arange(20) % 2, np.arange(3, 20)
    evaluator = Evaluator(Accelerator(cpu=True), CONFIG, SPEC, batch_size=16)
    path = open_features(evaluator.model, CONFIG, cache, SPEC, torch.device("cpu"))
    from_features = evaluator.logits(make_loader(FrozenFeatures(path, labels), rows, batch_size=8), pooled=True)
    from_pixels = evaluator.logits(make_loader(CachedPhotos(cache.path, labels), rows, batch_size=8))
    assert not disagreement(from_features, from_pixels, LOGIT)
    assert np.ptp(from_pixels) > 1e-2


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    run: Path, frozen: list[object], tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Trainer.epoch

    def stopped(trainer: Trainer, number: int) -> None:
        if number == 3:
            raise KeyboardInterrupt
        steps(trainer, number)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "epoch", stopped)
        assert fit("--data", tiny_set, "--out", tmp_path / "run", *frozen) == 130
    assert fit("--data", tiny_set, "--out", tmp_path / "run", *frozen, "--resume") == 0
    one, two = (load_checkpoint(folder / "final_model.pth").weights for folder in (run, tmp_path / "run"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--augment", "crop"], "--freeze-backbone knows each photo and its mirror image; give --augment flip"),
        (["--faulty-mode", "input_noise"], "--freeze-backbone can't see them"),
        (["--pseudo-fakes", "sbi"], "--freeze-backbone can't see them"),
        (["--gram", "40"], "--gram 40: this network's maps are numbered from 1 to 8"),
        (["--zoom", "0.5"], "--zoom must be from 1 to 4"),
        (["--model", "dual_stream"], "--gram, --zoom and --freeze-backbone are for networks of one stream"),
    ],
)
def test_what_does_not_go_together_is_refused(
    flags: list[str], words: str, frozen: list[object], tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit("--data", tiny_set, "--out", tmp_path / "run", *frozen, *flags) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run" / "best_model.pth").exists()


def test_random_weights_are_not_frozen(tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fit("--data", tiny_set, "--out", tmp_path / "run", *TINY, "--freeze-backbone", "--augment", "flip") == 2
    assert "random ones know nothing" in capsys.readouterr().err
