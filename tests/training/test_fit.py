"""`unmask train` from outside: what it writes, that it repeats, resumes, refuses and separates its parts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detector import CalibrationCurve, ImageSpec, decode_image
from tests.training.conftest import RUN, TINY, draw_set, fit
from training.data.loader import normalise
from training.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def _metrics(run: Path) -> dict[str, Any]:
    """What a run reports, without how long it took."""
    metrics = json.loads((run / "metrics.json").read_text())
    metrics.pop("speed")
    return metrics


def _same_weights(a: Path, b: Path, name: str = "best_model.pth") -> bool:
    one, two = (load_checkpoint(run / name).weights for run in (a, b))
    return all(torch.equal(one[k], two[k]) for k in one)


def test_a_run_folder_holds_what_the_next_stages_read(tiny_run: Path) -> None:
    models = {"best_model.pth", "final_model.pth", "last.pth"}
    assert {p.name for p in tiny_run.iterdir()} == models | {
        *(
            "calibrator.joblib",
            "calibration.json",
            "metrics.json",
            "scores.csv",
            "run.yaml",
            "report",
            "cache",
            "MODEL_CARD.md",
        ),
    }
    for name in ("best_model.pth", "final_model.pth"):
        checkpoint = load_checkpoint(tiny_run / name)
        assert checkpoint.image_spec == ImageSpec(size=32)
        assert checkpoint.arguments["lr"] == 3e-3
        assert checkpoint.metrics["tune_auc"] > 0.5
        assert checkpoint.fingerprint == _metrics(tiny_run)["fingerprint"]


def test_reported_numbers_are_those_of_the_saved_model_on_the_validation_photos(tiny_run: Path, tiny_set: Path) -> None:
    checkpoint = load_checkpoint(tiny_run / "best_model.pth")
    files = [
        (p, label) for label, name in enumerate(("Real", "Fake")) for p in sorted((tiny_set / "Validation" / name).iterdir())
    ]
    pixels = np.stack([decode_image(p.read_bytes(), checkpoint.image_spec) for p, _ in files])
    with torch.no_grad():
        raw = (
            checkpoint.build()(normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), checkpoint.image_spec))
            .sigmoid()
            .numpy()
        )
    labels = np.array([label for _, label in files])
    calibrated = CalibrationCurve.from_dict(json.loads((tiny_run / "calibration.json").read_text()))(raw)
    reported = _metrics(tiny_run)["validation"]
    above = raw[labels == 1][:, None] - raw[labels == 0][None, :]
    assert reported["auc"]["value"] == pytest.approx((above > 0).mean() + (above == 0).mean() / 2)
    assert reported["auc"]["value"] > 0.8
    assert reported["brier_raw"]["value"] == pytest.approx(((raw - labels) ** 2).mean(), abs=1e-5)
    assert reported["accuracy"]["value"] == pytest.approx(((calibrated >= 0.5) == labels).mean())


def test_metrics_say_how_the_run_was_made(tiny_run: Path) -> None:
    metrics = json.loads((tiny_run / "metrics.json").read_text())
    assert metrics["counts"]["fit"] == {"real": 48, "fake": 48}
    assert metrics["counts"]["calibrate"] == metrics["counts"]["tune"] == {"real": 6, "fake": 6}
    assert metrics["counts"]["validation"] == {"real": 30, "fake": 30}
    assert [row["epoch"] for row in metrics["history"]] == [1, 2, 3, 4, 5]
    best = max(metrics["history"], key=lambda row: (row["tune_auc"], -row["tune_loss"]))
    assert metrics["best_epoch"] == best["epoch"]
    assert metrics["history"][-1]["train_loss"] < metrics["history"][0]["train_loss"]
    assert sum(metrics["reference_scores"]["counts"]) == 60
    assert metrics["speed"]["images_per_second"] > 0
    assert {"torch", "timm", "scikit-learn"} <= set(metrics["libraries"])


def test_the_same_command_gives_the_same_metrics(tiny_run: Path, tiny_set: Path, tmp_path: Path) -> None:
    assert fit("--data", tiny_set, "--out", tmp_path / "run", *RUN) == 0
    assert _metrics(tmp_path / "run") == _metrics(tiny_run)
    assert _same_weights(tmp_path / "run", tiny_run)
    assert fit("--data", tiny_set, "--out", tmp_path / "b", "--epochs", 1, "--seed", 1, *TINY) == 0
    assert _metrics(tmp_path / "b")["history"][0] != _metrics(tiny_run)["history"][0]


def test_an_interrupted_run_resumes_to_the_metrics_of_an_uninterrupted_one(tiny_set: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(tiny_set), "--epochs", "6", *TINY, "--augment", "robust", "--crop", "24"]
    out = tmp_path / "run"
    command = [sys.executable, "-m", "unmask", "train", "--out", str(out), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env=ONE_THREAD, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / "last.pth").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "--resume" in said
    done = len(load_checkpoint(out / "last.pth").resume["history"])
    assert 1 <= done < 6
    assert not (out / "metrics.json").exists()
    assert fit("--out", out, "--resume", *arguments) == 0
    assert fit("--out", tmp_path / "whole", *arguments) == 0
    assert _metrics(out) == _metrics(tmp_path / "whole")
    assert _same_weights(out, tmp_path / "whole")
    assert _same_weights(out, tmp_path / "whole", "final_model.pth")


def test_a_network_fitted_on_small_squares_gets_the_statistics_of_whole_photos(tiny_set: Path, tmp_path: Path) -> None:
    arguments = ["--data", tiny_set, "--epochs", 1, *TINY, "--schedule", "cosine", "--augment", "crop", "--crop", 16]
    assert fit("--out", tmp_path, *arguments) == 0
    best, final = (load_checkpoint(tmp_path / name) for name in ("best_model.pth", "final_model.pth"))
    rows = [line.split(",") for line in (tmp_path / "scores.csv").read_text().splitlines()]
    names = [row[rows[0].index("name")] for row in rows if row[rows[0].index("part")] == "fit"]
    pixels = np.stack([decode_image((tiny_set / name).read_bytes(), best.image_spec) for name in names])
    seen: list[torch.Tensor] = []
    network = best.build()
    first = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2), best.image_spec))
    assert first.running_mean is not None
    torch.testing.assert_close(first.running_mean, seen[0].mean(dim=(0, 2, 3)), rtol=0.05, atol=0.05)
    statistics = {name for name in best.weights if "running_" in name}
    changed = {name for name in best.weights if not torch.equal(best.weights[name], final.weights[name])}
    assert statistics
    assert changed - {name for name in best.weights if name.endswith("num_batches_tracked")} == statistics


def test_resuming_with_other_arguments_or_photos_is_refused_with_what_differs(
    tiny_run: Path, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(tiny_run, tmp_path / "run")
    before = (out / "metrics.json").read_bytes()
    assert fit("--data", tiny_set, "--out", out, "--resume", *RUN, "--lr", 5e-4, "--seed", 9) == 2
    said = capsys.readouterr().err
    assert "lr was 0.003 and is 0.0005" in said
    assert "seed was 0 and is 9" in said
    other = draw_set(tmp_path / "other", train=12, validation=3)
    assert fit("--data", other, "--out", out, "--resume", *RUN) == 2
    assert "the photos are not the same" in capsys.readouterr().err
    assert (out / "metrics.json").read_bytes() == before


def test_a_folder_in_use_is_refused_and_overwrite_replaces_only_the_run(
    tiny_run: Path, tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(tiny_run, tmp_path / "run")
    (out / "my notes.txt").write_text("keep me")
    arguments = ["--data", tiny_set, "--out", out, "--epochs", 1, *TINY, "--no-calibrate"]
    assert fit(*arguments) == 2
    said = capsys.readouterr().err
    assert "--resume" in said
    assert "--overwrite" in said
    assert fit(*arguments, "--overwrite") == 0
    assert (out / "my notes.txt").read_text() == "keep me"
    assert not (out / "calibrator.joblib").exists()  # the earlier run's
    assert json.loads((out / "calibration.json").read_text())["method"] == "none"
    assert _metrics(out)["counts"]["calibrate"] == {"real": 0, "fake": 0}


def test_validation_photos_decide_nothing(tiny_set: Path, tmp_path: Path) -> None:
    turned = shutil.copytree(tiny_set, tmp_path / "turned")
    (turned / "Validation" / "Real").rename(tmp_path / "aside")
    (turned / "Validation" / "Fake").rename(turned / "Validation" / "Real")
    (tmp_path / "aside").rename(turned / "Validation" / "Fake")
    for name, data in (("a", tiny_set), ("b", turned)):
        assert fit("--data", data, "--out", tmp_path / name, "--epochs", 2, *TINY) == 0
    a, b = _metrics(tmp_path / "a"), _metrics(tmp_path / "b")
    assert a["history"] == b["history"]
    assert _same_weights(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "calibration.json").read_bytes() == (tmp_path / "b" / "calibration.json").read_bytes()
    assert a["validation"]["auc"]["value"] == pytest.approx(1 - b["validation"]["auc"]["value"])


def test_unreadable_files_are_named_and_the_rest_is_trained_on(
    tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(tiny_set, tmp_path / "data")
    (data / "Train" / "Real" / "000.jpg").write_bytes(b"")
    Image.new("RGB", (8, 8)).save(data / "Validation" / "Fake" / "moving.gif")
    assert fit("--data", data, "--out", tmp_path / "run", "--epochs", 1, *TINY) == 0
    said = capsys.readouterr().err
    assert "2 of 181 files can't be read" in said
    assert "Train/Real/000.jpg: the image is empty" in said
    metrics = _metrics(tmp_path / "run")
    assert set(metrics["unreadable"]) == {"Train/Real/000.jpg", "Validation/Fake/moving.gif"}
    assert sum(part["real"] + part["fake"] for part in metrics["counts"].values()) == 179


def test_the_flags_of_older_systems_still_train(tiny_set: Path, tmp_path: Path) -> None:
    old = ["--dataset_root", tiny_set, "--output_dir", tmp_path / "old", "--epochs", 1, "--batch_size", 16, "--img_size", 32,
           "--lr", 1e-3, "--calibrate"]  # fmt: skip
    new = ["--data", tiny_set, "--out", tmp_path / "new", "--epochs", 1, "--batch-size", 16, "--size", 32, "--lr", 1e-3]
    rest = [*TINY[:3], *TINY[5:7], *TINY[11:15], "--calibrate-fraction", 0.45]
    for flags in (old, new):
        assert fit(*flags, *rest) == 0
    assert _metrics(tmp_path / "old") == _metrics(tmp_path / "new")


def test_mixed_precision_trains_and_is_scored_in_full_precision(tiny_set: Path, tmp_path: Path) -> None:
    assert fit("--data", tiny_set, "--out", tmp_path / "run", "--epochs", 1, "--use_amp", *TINY) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["arguments"]["amp"] == "auto"
    assert metrics["speed"]["precision"] in ("no", "bf16")
    weights = load_checkpoint(tmp_path / "run" / "best_model.pth").weights
    assert {v.dtype for v in weights.values()} <= {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lr", "-1"], "--lr must be above 0"),
        (["--batch-size", "1", "--size", "8"], "--size must be from 16 to 2048; --batch-size must be 2 or more"),
        (["--weights", "nowhere.pth"], "nowhere.pth: no such file"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--crop", "24"], "--crop is the side of the square that --augment crop and robust cut out"),
        (["--augment", "robust", "--size", "32", "--crop", "33"], "--crop must be from 16 to --size"),
        (["--model", "efficientnet_b99", "--no-pretrained"], "neither in timm nor in torchvision"),
        (["--amp", "fp16", "--device", "cpu", "--no-pretrained"], "--amp fp16 needs CUDA"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(
    tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert fit("--data", tiny_set, "--out", tmp_path / "run", *arguments) in (1, 2)
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "last.pth").exists()


def test_two_processes_train_what_one_trains(tiny_set: Path, tmp_path: Path) -> None:
    # No batch norm and no dropout: these are drawn within a process, so they alone would differ. Small steps: Adam's are as
    # long for a gradient of nothing but rounding, which differs.
    arguments = ["--data", tiny_set, "--epochs", 2, "--lr", 1e-4, "--model", "torchvision/squeezenet1_1", "--no-pretrained",
                 "--size", 32, "--hidden", 16, "--workers", 0, "--dropout", 0, "--batch-size", 24,
                 "--calibration", "platt", "--cross-fit", 2]  # fmt: skip
    assert fit(*arguments, "--out", tmp_path / "one", "--device", "cpu") == 0
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    subprocess.run(
        [*launch, "-m", "unmask", "train", *map(str, arguments), "--out", str(tmp_path / "two")],
        cwd=ROOT, check=True, timeout=240, env=ONE_THREAD,
    )  # fmt: skip
    one, two = _metrics(tmp_path / "one"), _metrics(tmp_path / "two")
    speed = json.loads((tmp_path / "two" / "metrics.json").read_text())["speed"]
    assert speed["processes"] == 2, "`--multi_gpu` is how accelerate launches several, on CPUs too"
    assert one["counts"] == two["counts"]
    assert one["fingerprint"] == two["fingerprint"]
    assert one["history"][0]["train_loss"] == pytest.approx(two["history"][0]["train_loss"], abs=1e-5)
    for mine, theirs in zip(one["history"], two["history"], strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-3)
        assert mine["tune_loss"] == pytest.approx(theirs["tune_loss"], abs=1e-3)
    assert one["cross_fit"]["auc"] == pytest.approx(two["cross_fit"]["auc"], abs=0.01)
    assert one["validation"]["brier_raw"]["value"] == pytest.approx(two["validation"]["brier_raw"]["value"], abs=1e-3)
