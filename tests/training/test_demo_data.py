"""The drawn set: the same bytes for a seed, nothing but the forgery between the classes, and no half set left behind."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import laplace
from sklearn.metrics import roc_auc_score

from detector.errors import FileError, UsageError
from training.demo.dataset import GENUINE, LIST, MARKER, STAGE, generate
from training.demo.forgery import FAMILIES

ROOT = Path(__file__).parents[2]


def rows_of(directory: Path) -> list[dict[str, str]]:
    with (directory / LIST).open(newline="") as file:
        return list(csv.DictReader(file))


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "set"
    generate(directory, count=600, size=128, progress=False)
    return directory


def statistics(data: bytes) -> dict[str, float]:
    pixels = np.asarray(Image.open(io.BytesIO(data)), np.float64)
    grey = pixels @ [0.299, 0.587, 0.114]
    power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
    frequency = np.abs(np.fft.fftfreq(len(grey)))
    red, green, blue = pixels.mean(axis=(0, 1))
    return {
        "file size": len(data),
        "mean": grey.mean(),
        "sharpness": laplace(grey).var(),
        "nyquist": power[np.maximum(frequency[:, None], frequency[None, :]) > 0.375].sum(),
        "deviation": grey.std(),
        "red": red,
        "green": green,
        "blue": blue,
        "saturation": (pixels.max(axis=-1) - pixels.min(axis=-1)).mean(),
    }


@pytest.mark.slow
def test_no_single_statistic_separates_the_classes(large: Path) -> None:
    rows = rows_of(large)
    measured = [statistics((large / row["file"]).read_bytes()) for row in rows]
    fake = [row["label"] == "Fake" for row in rows]
    aucs = {name: roc_auc_score(fake, [m[name] for m in measured]) for name in measured[0]}
    strength = {name: round(max(auc, 1 - auc), 3) for name, auc in aucs.items()}
    print(strength)
    assert max(strength.values()) < 0.65, strength


def test_files_differ_in_nothing_but_pixels(large: Path) -> None:
    tables: dict[str, Counter[str]] = {"Real": Counter(), "Fake": Counter()}
    for row in rows_of(large):
        with Image.open(large / row["file"]) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (128, 128), "RGB")
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
            tables[row["label"]][str(image.quantization)] += 1
    assert tables["Real"] == tables["Fake"]


def test_classes_families_and_splits_have_their_shares(large: Path) -> None:
    rows = rows_of(large)
    assert {row["file"] for row in rows} == set(bytes_of(large)) - {LIST, MARKER}
    assert Counter((row["label"], row["split"]) for row in rows) == {
        (label, split): n for label in ("Real", "Fake") for split, n in (("Train", 240), ("Validation", 60))
    }
    families = Counter((row["family"], row["split"]) for row in rows if row["label"] == "Fake")
    assert families == {(f, split): n for f in FAMILIES for split, n in (("Train", 48), ("Validation", 12))}
    assert {row["family"] for row in rows if row["label"] == "Real"} == {GENUINE}


def test_file_numbers_do_not_tell_the_class(large: Path) -> None:
    rows = rows_of(large)
    numbers = [int(Path(row["file"]).stem.split("_")[1]) for row in rows]
    assert len(set(numbers)) == len(rows)
    assert abs(roc_auc_score([row["label"] == "Fake" for row in rows], numbers) - 0.5) < 0.1


def test_a_seed_gives_the_same_bytes_whatever_the_number_of_workers(tmp_path: Path) -> None:
    for name, seed, workers in (("one", 3, 1), ("two", 3, 2), ("other", 4, 1)):
        generate(tmp_path / name, count=30, size=64, seed=seed, workers=workers, progress=False)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    assert bytes_of(tmp_path / "one") != bytes_of(tmp_path / "other")


def test_a_finished_set_is_kept_and_one_with_other_parameters_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tmp_path, count=20, size=64, workers=1, progress=False)
    photo = tmp_path / rows_of(tmp_path)[0]["file"]
    before = photo.stat().st_mtime_ns
    generate(tmp_path, count=20, size=64, workers=1, progress=False)
    assert "kept" in capsys.readouterr().out
    assert photo.stat().st_mtime_ns == before
    generate(tmp_path, count=24, size=64, workers=1, progress=False)
    assert len(rows_of(tmp_path)) == 24
    assert {row["file"] for row in rows_of(tmp_path)} == set(bytes_of(tmp_path)) - {LIST, MARKER}


def test_a_set_with_a_photo_missing_is_drawn_again(tmp_path: Path) -> None:
    generate(tmp_path, count=20, size=64, workers=1, progress=False)
    whole = bytes_of(tmp_path)
    (tmp_path / rows_of(tmp_path)[0]["file"]).unlink()
    generate(tmp_path, count=20, size=64, workers=1, progress=False)
    assert bytes_of(tmp_path) == whole


@pytest.mark.parametrize("made", [False, True])
def test_files_of_others_are_refused_and_left_alone(tmp_path: Path, made: bool) -> None:
    if made:
        generate(tmp_path, count=20, size=64, workers=1, progress=False)
    holiday = tmp_path / "Train" / "Real" / "holiday.jpg"
    holiday.parent.mkdir(parents=True, exist_ok=True)
    holiday.write_bytes(b"mine")
    before = bytes_of(tmp_path)
    with pytest.raises(FileError, match="holiday"):
        generate(tmp_path, count=22, size=64, workers=1, progress=False)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("wrong", [{"count": 3}, {"size": 65}, {"size": 8}, {"seed": -1}])
def test_parameters_that_cannot_work_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        generate(tmp_path / "set", progress=False, **wrong)
    assert not (tmp_path / "set").exists()


def test_an_interrupted_set_is_not_mistaken_for_a_whole_one(tmp_path: Path) -> None:
    code = (
        f"from pathlib import Path; from training.demo.dataset import generate; generate(Path({str(tmp_path)!r}), count=5000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(f"{STAGE}/*/*/*.jpg")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode != 0
    assert bytes_of(tmp_path) == {}
    generate(tmp_path, count=20, size=64, workers=1, progress=False)
    assert len(rows_of(tmp_path)) == 20
