"""Mixup: photos and labels are blended by the same shares, and a photo's own class keeps the upper hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.training.conftest import TINY, fit
from training.data.mixup import mixed

pytestmark = pytest.mark.slow


def test_a_photo_and_its_label_are_blended_by_the_same_share_and_its_own_is_the_larger() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0])
    images = labels.view(4, 1, 1, 1).expand(4, 3, 2, 2).contiguous()  # pixels that show the label
    blended = 0
    for _ in range(40):
        x, y = mixed(images, labels, 1.0)
        torch.testing.assert_close(x[:, 0, 0, 0], y)
        assert torch.equal((y > 0.5).float(), labels)
        blended += int(((y > 0) & (y < 1)).any())
    assert blended > 20


def test_a_run_with_mixup_repeats_and_differs_from_one_without(tiny_set: Path, tmp_path: Path) -> None:
    rows = []
    for name, flags in (("a", ("--mixup", 0.4)), ("b", ("--mixup", 0.4)), ("plain", ())):
        assert fit("--data", tiny_set, "--out", tmp_path / name, "--epochs", 1, *flags, "--augment", "crop", *TINY) == 0
        rows.append(json.loads((tmp_path / name / "metrics.json").read_text())["history"][0])
    assert rows[0] == rows[1]
    assert rows[0]["train_loss"] != pytest.approx(rows[2]["train_loss"])
