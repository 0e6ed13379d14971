"""`unmask audit` from outside: planted duplicates, leaks, broken files and shortcuts are found, no others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detector import ImageSpec
from tests.conftest import encode
from tests.training.conftest import TINY, fit
from training.audit.duplicates import find_matches, group_names, group_numbers
from training.audit.shortcuts import ALL, FEATURES, measure
from training.data.cache import read_photos
from training.data.facts import facts_of, read_facts
from training.data.photos import Photo, divide, find_photos
from training.errors import DataProblem
from unmask.__main__ import main


def paint(folder: Path, count: int, *, seed: int, grain: float = 0) -> None:
    """Pictures that differ from each other as photos do, alike in all else for every seed."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        layers = [rng.integers(0, 256, (n, n, 3), dtype=np.uint8) for n in (4, 8, 16)]
        blown = [np.asarray(Image.fromarray(v).resize((96, 96), Image.Resampling.BICUBIC), np.float32) for v in layers]
        noisy = np.mean(blown, axis=0) + rng.normal(0, grain * rng.uniform(0.2, 1.8), (96, 96, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.jpg", quality=100 if grain else 90)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A clean divided folder: 30 of each class to train on, 15 to validate on."""
    for seed, (part, count) in enumerate([("Train", 30), ("Validation", 15)]):
        paint(tmp_path / "data" / part / "Real", count, seed=10 + seed)
        paint(tmp_path / "data" / part / "Fake", count, seed=20 + seed)
    return tmp_path / "data"


def audit(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the command."""
    capsys.readouterr()
    code = main(["audit", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def pairs(found: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    return {tuple(entry["photos"]) for entry in found}


def test_a_clean_folder_has_no_findings_and_exits_with_0(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = audit(capsys, folder)
    assert code == 0
    assert found["counts"] == {"train": {"real": 30, "fake": 30}, "validation": {"real": 15, "fake": 15}}
    assert found["duplicates"] == found["leaks"] == found["leaking_groups"] == found["shortcuts_warned_of"] == []
    assert found["unreadable"] == {}
    assert set(found["shortcuts"]) == {*FEATURES, ALL}
    assert found["shortcuts"]["format"] == found["shortcuts"]["dimensions"] == 0.5


def test_copies_are_found_exact_or_changed_across_parts_and_classes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = folder / "Train" / "Real"
    shutil.copy(real / "000.jpg", real / "copy.jpg")
    shutil.copy(real / "001.jpg", folder / "Validation" / "Real" / "leak.jpg")
    changed = {
        "Validation/Fake/re-encoded.jpg": lambda im: encode(im, "JPEG", quality=40),
        "Train/Fake/cropped.jpg": lambda im: encode(im.crop((2, 2, 94, 94)), "JPEG", quality=85),
        "Validation/Real/small.webp": lambda im: encode(im.resize((64, 64)), "WEBP", quality=85),
        "Train/Real/brighter.png": lambda im: encode(im.point(lambda v: min(255, round(v * 1.1)))),
    }
    for i, (name, change) in enumerate(changed.items(), 2):
        (folder / name).write_bytes(change(Image.open(real / f"{i:03d}.jpg")))
    code, found = audit(capsys, folder, "--out", tmp_path / "out")
    assert code == 1
    assert pairs([m for m in found["duplicates"] if m["exact"]]) == {
        ("Train/Real/000.jpg", "Train/Real/copy.jpg"),
        ("Train/Real/001.jpg", "Validation/Real/leak.jpg"),
    }
    near = {tuple(sorted((f"Train/Real/{i:03d}.jpg", name))) for i, name in enumerate(changed, 2)}
    assert pairs([m for m in found["duplicates"] if not m["exact"]]) == near
    assert pairs(found["leaks"]) == {
        ("Train/Real/001.jpg", "Validation/Real/leak.jpg"),
        ("Train/Real/002.jpg", "Validation/Fake/re-encoded.jpg"),
        ("Train/Real/004.jpg", "Validation/Real/small.webp"),
    }
    assert found["between_classes"] == 2
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == found
    text = (tmp_path / "out" / "audit.txt").read_text()
    assert "between Train and Validation (leaks): 3" in text
    assert "Train/Real/001.jpg = Validation/Real/leak.jpg (the same file)" in text


def test_fit_refuses_a_leak_and_names_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(7):
        shutil.copy(folder / "Train" / "Real" / f"{i:03d}.jpg", folder / "Validation" / "Fake" / f"leak{i}.jpg")
    assert fit("--data", folder, "--out", tmp_path / "run", "--epochs", 1, *TINY) == 2
    said = capsys.readouterr().err
    assert "leak, 7 found" in said
    assert "Train/Real/004.jpg = Validation/Fake/leak4.jpg" in said
    assert "and 2 more" in said
    assert "unmask audit" in said
    assert not (tmp_path / "run" / "last.pth").exists()


def test_unreadable_files_are_warnings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "b.jpg"):  # both empty, and still no duplicates
        (folder / "Train" / "Fake" / name).write_bytes(b"")
    (folder / "Validation" / "Real" / "notes.txt").write_text("not a photo")
    code, found = audit(capsys, folder)
    assert code == 0
    assert set(found["unreadable"]) == {"Train/Fake/a.jpg", "Train/Fake/b.jpg", "Validation/Real/notes.txt"}
    assert found["duplicates"] == []


def test_planted_shortcuts_are_measured_warned_of_and_recorded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in folder.rglob("Real/*.jpg"):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    code, found = audit(capsys, folder)
    assert code == 0
    assert {"format", "quantisation", "subsampling", "file size", ALL} <= set(found["shortcuts_warned_of"])
    assert found["shortcuts"]["format"] == found["shortcuts"][ALL] == 1
    assert {"mean colour", "dimensions", "EXIF"}.isdisjoint(found["shortcuts_warned_of"])
    assert fit("--data", folder, "--out", tmp_path / "run", "--epochs", 1, *TINY, "--calibration", "none") == 0
    assert "format 1.00" in capsys.readouterr().err
    recorded = json.loads((tmp_path / "run" / "metrics.json").read_text())["audit"]
    assert recorded["shortcuts"] == found["shortcuts"]
    assert recorded["leaks"] == 0


def test_relations_that_do_not_rise_are_seen_and_chance_is_a_half() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 200)
    said = encode(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    base = facts_of(said, "0" * 64)
    sizes = np.where(labels == 0, 1000, rng.choice([500, 2000], 400))
    tables = [f"{v:08x}" for v in rng.integers(0, 2**32, 400)]  # a table of its own for each photo tells nothing
    facts = [
        type(base)(**vars(base) | {"bytes": int(n), "quantisation": t, "sharpness": float(s)})
        for n, t, s in zip(sizes, tables, rng.normal(size=400), strict=True)
    ]
    aucs = measure(facts, labels)
    assert aucs["file size"] == 1
    assert aucs["quantisation"] == pytest.approx(0.5, abs=0.06)
    assert aucs["sharpness"] == pytest.approx(0.5, abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(("quality", "bound"), [(85, 0.65), (60, 1.0)])
def test_equalising_takes_light_compression_away_and_leaves_what_strong_compression_took(
    tmp_path: Path, quality: int, bound: float
) -> None:
    paint(tmp_path / "real", 120, seed=1, grain=8)
    paint(tmp_path / "fake", 120, seed=2, grain=8)
    for path in (tmp_path / "real").iterdir():
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    for path in (tmp_path / "fake").iterdir():
        path.write_bytes(encode(Image.open(path), "JPEG", quality=quality))
    photos, spec = find_photos(tmp_path), ImageSpec(size=96)
    labels = np.array([photo.label for photo in photos])
    assert measure(read_facts(photos), labels)["format"] == 1

    def of_cached(*, equalise: bool) -> dict[str, float]:
        cache = read_photos(photos, spec, tmp_path / "cache", equalise=equalise).cache
        return measure([facts_of(encode(pixels), str(row)) for row, pixels in enumerate(cache.pixels())], labels)

    before, after = of_cached(equalise=False), of_cached(equalise=True)
    assert before["file size"] > 0.65  # of the pixels saved anew: what the network could see
    assert after["file size"] < before["file size"] - 0.05
    assert after[ALL] < before[ALL] - 0.05
    assert max(after[name] for name in FEATURES) < bound
    if quality == 60:
        assert after["sharpness"] > 0.6  # the docstring's limit


def test_groups_and_duplicates_stay_in_one_part(tmp_path: Path) -> None:
    paint(tmp_path / "real", 80, seed=1)
    paint(tmp_path / "fake", 80, seed=2)
    for i in range(20):  # composites beside their originals, and a person in several photos
        Image.open(tmp_path / "real" / f"{i:03d}.jpg").save(tmp_path / "fake" / f"of{i:03d}.jpg", quality=60)
    photos = find_photos(tmp_path)
    names = group_names(photos, r"^\w+/0(4\d)")
    groups = group_numbers(len(photos), find_matches(read_facts(photos)), names)
    assert len(photos) - len(set(groups)) == 20 + 10  # each composite with its photo, ten real ones with ten fake ones
    ones = np.ones(len(photos), bool)
    parts, again = (divide(photos, ones, tune=0.1, calibrate=0.1, seed=5, groups=groups) for _ in range(2))
    where = {int(row): part for part, rows in parts.items() for row in rows}
    assert sorted(where) == list(range(len(photos)))
    for group in set(groups):
        assert len({where[row] for row in np.flatnonzero(groups == group)}) == 1
    labels = np.array([photo.label for photo in photos])
    assert [len(rows) for _, rows in parts.items()] == pytest.approx([116, 14, 14, 36], abs=3)
    assert [labels[rows].mean() for _, rows in parts.items()] == pytest.approx([100 / 180] * 4, abs=0.12)
    assert all((a == b).all() for (_, a), (_, b) in zip(parts.items(), again.items(), strict=True))


def test_a_group_on_both_sides_is_a_leak_and_a_bad_pattern_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = audit(capsys, folder, "--group-by", r"/00(\d)\.jpg$")
    assert code == 1
    assert found["leaking_groups"] == [str(i) for i in range(10)]
    for pattern, words in (("(", "not a regular expression"), ("nobody", "matches no photo")):
        assert main(["audit", str(folder), "--group-by", pattern]) == 2
        assert words in capsys.readouterr().err
        assert fit("--data", folder, "--out", tmp_path / "run", "--group-by", pattern, *TINY) == 2
        assert words in capsys.readouterr().err


def test_groups_too_large_for_the_parts_are_refused() -> None:
    photos = [Photo(Path(), f"{label}/{i:02d}", label, None) for label in (0, 1) for i in range(30)]
    with pytest.raises(DataProblem, match="no real photo is left"):
        divide(photos, np.ones(60, bool), tune=0.1, calibrate=0.1, seed=0, groups=np.zeros(60, np.int64))


def test_different_faces_are_not_called_duplicates(shared_dir: Path) -> None:
    photos = find_photos(shared_dir / "data" / "faces")
    matches = find_matches(read_facts(photos))
    assert not [m for m in matches if photos[m.first].part != photos[m.second].part]
    assert not [m for m in matches if photos[m.second].label == 0]
    assert len(matches) <= 3  # generated portraits that look like twins, of 1.6 million pairs
