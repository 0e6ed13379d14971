"""The pointing game: maps that know the mask win it, maps that know nothing get what chance gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detector import ImageSpec
from tests.training.conftest import draw
from training.data.pseudo_fakes import self_blend
from training.evaluation.pointing_game import play
from unmask.__main__ import main

SPEC = ImageSpec(size=64)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("real")
    draw(folder, 150, grain=12, seed=4)
    return sorted(folder.iterdir())


def test_a_map_of_the_blend_itself_hits_and_its_opposite_misses(real: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[np.ndarray] = []

    def remembered(pixels: np.ndarray, seed: int) -> np.ndarray:
        masks.append(self_blend(pixels, seed).mask.reshape(8, 8, 8, 8).mean(axis=(1, 3)))
        return pixels

    monkeypatch.setattr("training.evaluation.pointing_game.pseudo_fake", remembered)

    def knowing(images: np.ndarray) -> np.ndarray:
        return np.stack(masks[-len(images) :])

    assert play(knowing, SPEC, real)["score"]["value"] == 1.0
    cornered = np.zeros((8, 8))
    cornered[0, 0] = 5
    found = play(lambda images: knowing(images) + cornered, SPEC, real)
    assert found["score"]["value"] < 0.1, "an edge that is the same on all photos wins"
    assert found["centred"]["value"] > 0.9
    assert play(lambda images: -knowing(images), SPEC, real)["score"]["value"] == 0.0


def test_maps_of_noise_get_what_chance_gives(real: list[Path]) -> None:
    rng = np.random.default_rng(0)
    found = play(lambda images: rng.normal(size=(len(images), 8, 8)), SPEC, [*real, real[0].parent / "gone.jpg"])
    assert found["photos"] == 150
    assert found["score"]["low"] < found["chance"] < found["score"]["high"]
    assert 0.1 < found["chance"] < 0.6
    assert play(lambda images: np.zeros((len(images), 8, 8)), SPEC, real, seed=1)["chance"] != found["chance"]


def test_it_is_asked_for_and_reported(
    tiny_run: Path, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--checkpoint", tiny_run / "best_model.pth", "--data", tiny_set, "--out", tmp_path / "out"]
    command = ["evaluate", *map(str, flags), "--json", "--pointing-game", "--pointing-photos"]
    assert main([*command, "20"]) == 0
    found = json.loads(capsys.readouterr().out)["pointing_game"]
    assert found["photos"] == 20
    page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
    assert "On pseudo-fakes of 20 of the real photos" in page
    assert main([*command, "0"]) == 2
