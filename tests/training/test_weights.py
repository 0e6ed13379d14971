"""First weights: a local file, the hub, or chance."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from detector.errors import FileError, UsageError
from tests.training.conftest import fit
from training.models.build import ModelConfig, build_model
from training.models.weight_files import read_states
from training.models.weights import initial_model

pytestmark = pytest.mark.slow

CONFIG = ModelConfig(name="test_resnet", hidden=(8,))


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped"])
def test_a_local_backbone_is_loaded_and_the_head_is_new(tmp_path: Path, kind: str) -> None:
    donor = build_model(CONFIG)
    tensors = {f"module.{k}": v for k, v in donor.features.model.state_dict().items()}
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        torch.save({"state_dict": tensors, "epoch": 3} if kind == "wrapped" else tensors, path)
    model = initial_model(CONFIG, weights=str(path), pretrained=True)
    for name, value in donor.features.state_dict().items():
        assert torch.equal(model.features.state_dict()[name], value)
    assert not torch.equal(model.head[1].weight, donor.head[1].weight)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_file(build_model(ModelConfig(name="torchvision/squeezenet1_1")).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match=r"other\.safetensors: .* another architecture"):
        initial_model(CONFIG, weights=str(tmp_path / "other.safetensors"), pretrained=True)


class _Bomb:
    def __reduce__(self) -> tuple:
        return print, ("code from a weights file ran",)


def test_a_weights_file_runs_no_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(_Bomb(), protocol=2))
    torch.save({"state_dict": _Bomb()}, tmp_path / "bomb2.pth")
    for name in ("bomb.pth", "bomb2.pth"):
        with pytest.raises(FileError, match=name):
            read_states(tmp_path / name)
    assert "ran" not in capfd.readouterr().out


def test_a_hub_out_of_reach_is_said_at_once_with_the_ways_out(
    tiny_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    assert fit("--data", tiny_set, "--out", tmp_path / "run", "--model", "efficientnet_b0", "--device", "cpu") == 1
    said = capsys.readouterr().err
    assert "the hub at http://127.0.0.1:9 can't be reached" in said
    assert "take --model efficientnet_lite0, whose weights are installed here" in said
    assert "--weights FILE" in said
    assert "--no-pretrained" in said
    assert "Retrying" not in said
    assert constants.HF_HUB_OFFLINE is False
