"""`unmask faults`: the whole grid, told apart from clean, and gone on with after an interruption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.training.conftest import TINY, last_of_each

pytestmark = pytest.mark.slow


def _faults(*arguments: object) -> int:
    from unmask.__main__ import main

    return main(["faults", *last_of_each(*arguments)])


@pytest.fixture(scope="module")
def grid(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid's folder on the small set; not to be written to."""
    out = tmp_path_factory.mktemp("faults") / "grid"
    assert _faults("--data", tiny_set, "--out", out, "--epochs", 3, *TINY, "--no-report") == 0
    return out


def test_every_fault_is_trained_and_held_against_clean(grid: Path) -> None:
    rows = {row["name"]: row for row in json.loads((grid / "faults.json").read_text())}
    assert rows["clean"]["faults"] == {}
    modes = {row["faults"].get("faulty_mode") for row in rows.values()}
    assert modes == {None, "label_noise", "input_noise", "shuffle_labels", "wrong_loss", "random_weight_reset"}
    assert any("zero_grad_every_n" in row["faults"] for row in rows.values())
    assert rows["clean"]["auc"]["value"] > rows["shuffle_labels"]["auc"]["value"] + 0.1
    # The sigmoid of what squared error fits lies between 0.5 and 0.73: far from a share of fakes, until it is calibrated.
    assert rows["wrong_loss"]["ece_raw"]["value"] > rows["wrong_loss"]["ece"]["value"]
    for name in ("auc.png", "calibration.png"):
        assert Image.open(grid / name).size[0] > 400


def test_the_same_command_trains_only_what_is_missing(tiny_set: Path, grid: Path, tmp_path: Path) -> None:
    out = shutil.copytree(grid, tmp_path / "grid")
    shutil.rmtree(out / "wrong_loss")
    kept = (out / "clean" / "metrics.json").stat().st_mtime_ns
    assert _faults("--data", tiny_set, "--out", out, "--epochs", 3, *TINY, "--no-report") == 0
    assert (out / "clean" / "metrics.json").stat().st_mtime_ns == kept
    again, before = (json.loads((folder / "faults.json").read_text()) for folder in (out, grid))
    assert again == before


def test_a_grid_of_other_options_or_with_a_fault_of_its_own_is_refused(
    tiny_set: Path, grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _faults("--data", tiny_set, "--out", grid, "--epochs", 2, *TINY) == 2
    assert "trained with other options" in capsys.readouterr().err
    assert _faults("--data", tiny_set, "--out", grid, "--faulty_mode", "wrong_loss", *TINY) == 2
    assert "leave --faulty_mode" in capsys.readouterr().err
