"""Injected faults: each does what it says and no more, is written down wherever the run goes, and none is exported unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import TINY, fit
from training.faults.injection import Fault, make_fault
from training.models.build import ModelConfig, build_model
from training.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

LABELS = np.arange(200) % 2
ROWS = np.arange(40, 140)  # what is fitted on; the rest is tuned, calibrated and reported on


def _fault(seed: int = 0, **faults: Any) -> Fault:
    return make_fault(faults, LABELS, ROWS, seed=seed)


def _metrics(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())


def test_label_noise_flips_the_share_asked_for_among_the_fitted_photos_and_the_same_ones_each_time() -> None:
    noise = {"faulty_mode": "label_noise", "label_noise_frac": 0.3}
    labels = _fault(**noise).labels()
    flipped = np.flatnonzero(labels != LABELS)
    assert len(flipped) == 30
    assert set(flipped) <= set(ROWS)
    np.testing.assert_array_equal(labels, _fault(**noise).labels())
    assert (labels != _fault(seed=1, **noise).labels()).any()


def test_shuffled_labels_keep_the_classes_sizes_and_say_nothing_about_the_photo() -> None:
    labels = _fault(faulty_mode="shuffle_labels").labels()
    outside = np.setdiff1d(np.arange(200), ROWS)
    np.testing.assert_array_equal(labels[outside], LABELS[outside])
    assert labels[ROWS].sum() == LABELS[ROWS].sum()
    assert 30 <= (labels[ROWS] != LABELS[ROWS]).sum() <= 70  # half of them by chance, ± 4 standard deviations


def test_input_noise_has_the_standard_deviation_asked_for() -> None:
    images = torch.full((8, 3, 64, 64), 128, dtype=torch.uint8)  # mid-grey, so that clipping takes nothing away
    fault = _fault(faulty_mode="input_noise", input_noise_std=0.1)
    noise = fault.inputs(images) / 255 - 128 / 255
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.002)
    white = fault.inputs(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8))
    assert float(white.max()) <= 255


def test_the_wrong_loss_is_another_function_of_the_logit() -> None:
    logits, labels = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])
    wrong = _fault(faulty_mode="wrong_loss").loss(logits, labels)
    assert float(wrong) == pytest.approx(((2 - 1) ** 2 + (-1 - 0) ** 2) / 2)
    right = _fault().loss(logits, labels)
    assert float(right) == pytest.approx(float(-(torch.sigmoid(logits[0]).log() + (1 - torch.sigmoid(logits[1])).log()) / 2))


def test_a_weight_reset_strikes_one_layer_before_each_epoch_but_the_first() -> None:
    model = build_model(ModelConfig("test_resnet", (8,)))
    fault = _fault(faulty_mode="random_weight_reset")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fault.before_epoch(model, 1)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    fault.before_epoch(model, 2)
    changed = {k.rsplit(".", 1)[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert len(changed) == 1
    assert fault.applied == {"reset_layers": 1}


def test_every_nth_update_is_skipped_across_epochs() -> None:
    fault = _fault(zero_grad_every_n=3)
    skipped = [(epoch, step) for epoch in (1, 2) for step in range(5) if fault.skips(epoch, step, 5)]
    assert skipped == [(1, 2), (2, 0), (2, 3)]  # the 3rd, 6th and 9th of ten
    assert fault.applied == {"skipped_updates": 3}


def test_skipping_every_update_leaves_the_weights_as_they_started(tiny_set: Path, tmp_path: Path) -> None:
    for epochs in (1, 2):
        arguments = ("--data", tiny_set, "--out", tmp_path / f"{epochs}", "--epochs", epochs, "--zero_grad_every_n", 1, *TINY)
        assert fit(*arguments) == 0
    one, two = (load_checkpoint(tmp_path / n / "final_model.pth").weights for n in ("1", "2"))
    learned = [k for k in one if "running_" not in k and "num_batches" not in k]
    assert all(torch.equal(one[k], two[k]) for k in learned)


def test_a_faulty_run_says_so_in_its_checkpoint_its_metrics_and_its_report(
    tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = ("--faulty_mode", "label_noise", "--label_noise_frac", 0.5, "--zero_grad_every_n", 2)
    assert fit("--data", tiny_set, "--out", out, "--epochs", 2, *flags, *TINY, report=True) == 0
    fitted = 96
    assert _metrics(out)["faults"] == {
        "faulty_mode": "label_noise",
        "label_noise_frac": 0.5,
        "zero_grad_every_n": 2,
        "flipped_labels": fitted // 2,
        "skipped_updates": 2 * (fitted // 16) // 2,
    }
    assert load_checkpoint(out / "best_model.pth").faults["faulty_mode"] == "label_noise"
    from unmask.__main__ import main

    capsys.readouterr()
    assert main(["inspect", str(out / "best_model.pth")]) == 0
    assert json.loads(capsys.readouterr().out)["faults"]["label_noise_frac"] == 0.5
    assert "label_noise" in (out / "report" / "index.html").read_text()


def test_a_clean_run_has_no_faults(tiny_run: Path) -> None:
    assert _metrics(tiny_run)["faults"] is None
    assert load_checkpoint(tiny_run / "best_model.pth").faults == {}
