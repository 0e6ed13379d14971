"""`fit --model ensemble` from outside: finished runs averaged, calibrated on what none of them has seen, or refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector import CalibrationCurve, decode_image
from detector.tolerance import LOGIT, disagreement
from tests.training.conftest import combine, fit
from training.data.loader import normalise
from training.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from unmask.__main__ import main

pytestmark = pytest.mark.slow

COMMON = [
    *("--no-pretrained", "--size", 32, "--lr", 3e-3, "--batch-size", 16, "--workers", 0, "--device", "cpu", "--epochs", 1),
    *("--calibration", "platt", "--calibrate-fraction", 0.2, "--split-seed", 3),
]


@pytest.fixture(scope="module")
def members(tiny_set: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two finished runs, of one stream and of two; not to be written to."""
    folder = tmp_path_factory.mktemp("members")
    for name, model, hidden in (("one", "test_resnet", 16), ("two", "dual_stream", 8)):
        assert fit("--data", tiny_set, "--out", folder / name, "--model", model, "--hidden", hidden, *COMMON) == 0
    return [folder / "one", folder / "two"]


@pytest.fixture(scope="module")
def ensemble(tiny_set: Path, members: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `fit --model ensemble` makes of them; not to be written to."""
    out = tmp_path_factory.mktemp("ensemble") / "run"
    assert combine(tiny_set, out, members) == 0
    return out


def altered(run: Path, copy: Path, checkpoint: dict[str, Any] | None = None, **arguments: object) -> Path:
    """A copy of a run that says of itself that it was made otherwise."""
    shutil.copytree(run, copy)
    before = load_checkpoint(run / "best_model.pth")
    changed = replace(before, arguments={**before.arguments, **arguments}, **(checkpoint or {}))
    save_checkpoint(copy / "best_model.pth", changed)
    return copy


def logits(checkpoint: Checkpoint, photos: list[Path]) -> np.ndarray:
    """Straight from the network."""
    pixels = np.stack([decode_image(p.read_bytes(), checkpoint.image_spec) for p in photos])
    with torch.inference_mode():
        x = normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), checkpoint.image_spec)
        return checkpoint.build()(x).numpy()


def test_one_checkpoint_answers_with_the_members_mean_logit(ensemble: Path, members: list[Path], tiny_set: Path) -> None:
    photos = sorted((tiny_set / "Validation").rglob("*.jpg"))
    alone = [logits(load_checkpoint(run / "best_model.pth"), photos) for run in members]
    together = load_checkpoint(ensemble / "best_model.pth")
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    assert not disagreement(logits(together, photos), np.mean(alone, axis=0), LOGIT)
    assert [m.name for m in together.model_config.members] == ["test_resnet", "dual_stream"]


def test_it_is_divided_calibrated_and_reported_as_its_members_were(
    ensemble: Path, members: list[Path], tiny_set: Path
) -> None:
    metrics, of_member = (json.loads((run / "metrics.json").read_text()) for run in (ensemble, members[0]))
    assert metrics["counts"] == of_member["counts"]
    assert metrics["fingerprint"] == of_member["fingerprint"]
    assert metrics["arguments"]["size"] == 32
    assert metrics["arguments"]["split_seed"] == 3
    assert not {"lr", "epochs", "hidden"} & set(metrics["arguments"])  # nothing of the kind was used
    assert "history" not in metrics
    files = {p.name for p in ensemble.iterdir()}
    assert {"best_model.pth", "calibration.json", "metrics.json", "report"} <= files
    assert not files & {"last.pth", "final_model.pth"}
    page = (ensemble / "report" / "index.html").read_text(encoding="utf-8")
    assert "ensemble" in page
    assert members[1].name in page
    assert str(members[1].parent) not in page, "a report travels to other machines"
    photos = [p for name in ("Real", "Fake") for p in sorted((tiny_set / "Validation" / name).iterdir())]
    curve = CalibrationCurve.from_dict(json.loads((ensemble / "calibration.json").read_text()))
    raw = torch.from_numpy(logits(load_checkpoint(ensemble / "best_model.pth"), photos)).sigmoid().numpy()
    labels = np.arange(len(photos)) >= len(photos) // 2
    assert metrics["validation"]["brier"]["value"] == pytest.approx(((curve(raw) - labels) ** 2).mean(), abs=1e-4)


def test_it_is_inspected_and_evaluated_like_any_run(
    ensemble: Path, members: list[Path], tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "alone"
    shutil.copytree(ensemble, moved)  # its members are not needed any more
    assert main(["inspect", str(moved / "best_model.pth")]) == 0
    assert len(json.loads(capsys.readouterr().out)["model"]["members"]) == 2
    assert main(["evaluate", "--checkpoint", str(moved / "best_model.pth"), "--data", str(tiny_set), "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)["validation"]
    reported = json.loads((ensemble / "metrics.json").read_text())["validation"]
    assert evaluated["auc"]["value"] == pytest.approx(reported["auc"]["value"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"split_seed": 4}, ["split_seed is 4 in", "and 3 in"]),
        ({"tune_fraction": 0.2, "group_by": "^(.)"}, ["tune_fraction is 0.2 in", "group_by is '^(.)' in"]),
        ({"calibration": "none"}, ["calibration part is False in"]),
        ({"checkpoint": {"fingerprint": "f" * 64}}, ["photos is 'ffffffffffff' in"]),
        ({"faulty_mode": "shuffle_labels"}, ["was trained with faults on purpose"]),
    ],
)
def test_a_member_that_has_seen_other_photos_is_named_with_what_differs(
    change: dict[str, Any],
    words: list[str],
    members: list[Path],
    tiny_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = altered(members[1], tmp_path / "other", **change)
    assert combine(tiny_set, tmp_path / "run", [members[0], other]) == 2
    said = capsys.readouterr().err
    for word in [*words, str(other)]:
        assert word in said
    assert not (tmp_path / "run").exists()


def test_members_prepared_at_another_size_are_refused(
    members: list[Path], tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = replace(load_checkpoint(members[1] / "best_model.pth").image_spec, size=64, resize="stretch")
    other = altered(members[1], tmp_path / "other", {"image_spec": spec})
    assert combine(tiny_set, tmp_path / "run", [members[0], other]) == 2
    said = capsys.readouterr().err
    assert f"size is 64 in {other} and 32 in {members[0]}" in said
    assert "resize is 'stretch'" in said


def test_what_means_nothing_for_an_ensemble_is_refused(
    members: list[Path], tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_set, tmp_path / "more")
    (tmp_path / "more" / "Train" / "Real" / "000.jpg").rename(tmp_path / "more" / "Train" / "Real" / "moved.jpg")
    refused = [
        (tiny_set, members, ["--resume"], "--resume: an ensemble is not trained"),
        (tiny_set, members, ["--size", 64], "--size is 64 and was 32 for the members"),
        (tiny_set, members, ["--calibration", "none"], "the members left photos aside"),
        (tiny_set, members[:1] * 2, [], "two runs or more, each once"),
        (tiny_set, [members[0], tmp_path], [], "best_model.pth"),
        (tmp_path / "more", members, [], "not the photos that the members were trained on"),
    ]
    for data, runs, more, words in refused:
        assert combine(data, tmp_path / "run", runs, *more) in (1, 2)
        assert words in capsys.readouterr().err
    assert combine(tiny_set, members[0], members, "--overwrite") == 2
    assert "is one of the members" in capsys.readouterr().err
