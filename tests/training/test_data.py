"""Finding photos, identifying them, dividing them, decoding them once."""

from __future__ import annotations

import csv
import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector import ImageSpec, decode_image
from detector.errors import UsageError
from tests.training.conftest import TINY, draw, draw_set, fit
from training.audit.duplicates import find_matches
from training.data.cache import read_photos
from training.data.photos import Photo, counts, divide, find_photos, fingerprint
from unmask.__main__ import main

SPEC = ImageSpec(size=24)


def test_a_divided_folder_is_found_in_any_letter_case(tmp_path: Path) -> None:
    for folder, count in [("TRAIN/real", 3), ("TRAIN/FAKE/deeper", 2), ("validation/Real", 1), ("validation/fake", 4)]:
        draw(tmp_path / folder, count, grain=1, seed=0)
    found = [(photo.part, photo.label) for photo in find_photos(tmp_path)]
    assert {kind: found.count(kind) for kind in found} == {
        ("train", 0): 3,
        ("train", 1): 2,
        ("validation", 0): 1,
        ("validation", 1): 4,
    }


def test_a_flat_folder_is_found_and_litter_passed_over(tmp_path: Path) -> None:
    draw(tmp_path / "REAL", 2, grain=1, seed=0)
    draw(tmp_path / "Fake", 1, grain=1, seed=0)
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / "REAL" / name).write_bytes(b"x")
    (tmp_path / "README.txt").write_text("about")
    assert [(p.name, p.label, p.part) for p in find_photos(tmp_path)] == [
        ("Fake/000.jpg", 1, None),
        ("REAL/000.jpg", 0, None),
        ("REAL/001.jpg", 0, None),
    ]


def test_another_layout_is_refused_with_what_was_found_and_what_is_expected(tmp_path: Path) -> None:
    draw(tmp_path / "train" / "real", 1, grain=1, seed=0)
    draw(tmp_path / "test" / "real", 1, grain=1, seed=0)
    with pytest.raises(UsageError) as caught:
        find_photos(tmp_path)
    for words in ("test/ (with real/)", "train/ (with real/)", "{Train,Validation}/{Real,Fake}", "{real,fake}"):
        assert words in caught.value.message
    with pytest.raises(UsageError, match="no such folder"):
        find_photos(tmp_path / "nowhere")


def test_the_fingerprint_is_of_names_and_contents_and_not_of_the_place(tmp_path: Path) -> None:
    draw(tmp_path / "a" / "real", 3, grain=1, seed=0)
    draw(tmp_path / "a" / "fake", 3, grain=9, seed=1)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    first = fingerprint(find_photos(tmp_path / "a"))
    assert fingerprint(find_photos(tmp_path / "b")) == first
    (tmp_path / "b" / "real" / "000.jpg").rename(tmp_path / "b" / "real" / "zzz.jpg")
    renamed = fingerprint(find_photos(tmp_path / "b"))
    (tmp_path / "b" / "real" / "zzz.jpg").write_bytes((tmp_path / "b" / "real" / "001.jpg").read_bytes())
    assert len({first, renamed, fingerprint(find_photos(tmp_path / "b"))}) == 3


def _photos(train: tuple[int, int], validation: tuple[int, int] | None) -> list[Photo]:
    parts = [("train" if validation else None, train), *([("validation", validation)] if validation else [])]
    return [
        Photo(Path(), f"{part}/{label}/{i:04d}", label, part) for part, n in parts for label in (0, 1) for i in range(n[label])
    ]


def test_parts_share_no_photo_and_keep_the_classes_proportions() -> None:
    photos = _photos((300, 100), (50, 40))
    parts = divide(photos, np.ones(len(photos), bool), tune=0.1, calibrate=0.2, seed=3)
    assert counts(parts, np.array([p.label for p in photos])) == {
        "fit": {"real": 210, "fake": 70},
        "tune": {"real": 30, "fake": 10},
        "calibrate": {"real": 60, "fake": 20},
        "validation": {"real": 50, "fake": 40},
    }
    everything = np.concatenate([rows for _, rows in parts.items()])
    assert sorted(everything) == list(range(len(photos)))
    assert all(photos[row].part == "validation" for row in parts.validation)


def test_each_fold_is_left_aside_once_and_groups_stay_in_one() -> None:
    photos, readable = _photos((100, 50), (20, 20)), np.ones(190, bool)
    groups = np.arange(190)
    groups[:12] = 0
    divided = partial(divide, photos, readable, tune=0.1, calibrate=0.1, folds=4, seed=3, groups=groups)
    whole, parts = divided(), [divided(fold=k) for k in (1, 2, 3, 4)]
    np.testing.assert_array_equal(whole.fit, whole.calibrate)
    untuned = divide(photos, readable, tune=0, calibrate=0.1, folds=4, seed=3, groups=groups)
    assert len(untuned.tune) == 0
    assert sorted([*untuned.fit, *untuned.validation]) == list(range(190))
    assert sorted(np.concatenate([p.calibrate for p in parts])) == list(whole.calibrate)
    for p in parts:
        np.testing.assert_array_equal(p.tune, whole.tune)
        np.testing.assert_array_equal(p.validation, whole.validation)
        assert sorted([*p.fit, *p.calibrate]) == list(whole.calibrate)
        of_class = [sum(photos[row].label == label for row in p.calibrate) for label in (0, 1)]
        assert of_class == pytest.approx([22.5, 11.25], abs=1)
    assert sum(0 in p.calibrate and 11 in p.calibrate for p in parts) + (0 in whole.tune) == 1


def test_a_fifth_of_a_flat_folder_validates_and_the_seed_says_which() -> None:
    photos = _photos((200, 100), None)
    first, again, other = (divide(photos, np.ones(300, bool), tune=0.1, calibrate=0, seed=s).validation for s in (0, 0, 1))
    assert len(first) == 60
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_too_few_photos_are_refused_by_class() -> None:
    photos = _photos((20, 5), (5, 5))
    with pytest.raises(UsageError, match="5 readable fake photos"):
        divide(photos, np.ones(len(photos), bool), tune=0.1, calibrate=0.1, seed=0)


def test_the_cache_holds_what_decode_image_gives_and_is_made_once(tmp_path: Path) -> None:
    draw(tmp_path / "real", 4, grain=5, seed=0)
    draw(tmp_path / "fake", 4, grain=5, seed=1)
    (tmp_path / "fake" / "001.jpg").write_bytes((tmp_path / "fake" / "001.jpg").read_bytes()[:300])
    (tmp_path / "fake" / "notes.txt").write_text("not a photo at all")
    photos = find_photos(tmp_path)
    cache = read_photos(photos, SPEC, tmp_path / "cache").cache
    assert set(cache.unreadable) == {"fake/001.jpg", "fake/notes.txt"}
    assert "text" in cache.unreadable["fake/notes.txt"]
    for row, photo in enumerate(photos):
        if photo.name not in cache.unreadable:
            np.testing.assert_array_equal(cache.pixels()[row], decode_image(photo.path.read_bytes(), SPEC))
    made = cache.path.stat().st_mtime_ns
    again = read_photos(photos, SPEC, tmp_path / "cache").cache
    assert (again.path.stat().st_mtime_ns, again.unreadable) == (made, cache.unreadable)


def test_another_spec_or_other_photos_get_a_cache_of_their_own(tmp_path: Path) -> None:
    draw(tmp_path / "real", 2, grain=5, seed=0)
    draw(tmp_path / "fake", 2, grain=5, seed=1)
    photos = find_photos(tmp_path)
    paths = [read_photos(photos, s, tmp_path / "cache").cache.path for s in (SPEC, ImageSpec(size=32))]
    draw(tmp_path / "real", 2, grain=5, seed=7)
    paths.append(read_photos(photos, SPEC, tmp_path / "cache").cache.path)
    assert len(set(paths)) == 3


def test_each_file_is_opened_once_for_hash_facts_thumbnail_and_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "real", 4, grain=30, seed=0)
    draw(tmp_path / "fake", 4, grain=30, seed=1)
    Image.open(tmp_path / "real" / "000.jpg").save(tmp_path / "fake" / "copy.jpg", quality=90)
    photos = find_photos(tmp_path)
    opened: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: opened.append(path) or read_bytes(path))
    first = read_photos(photos, SPEC, tmp_path / "cache")
    assert sorted(opened) == sorted(photo.path for photo in photos)
    again = read_photos(photos, SPEC, tmp_path / "cache")
    assert len(opened) == 2 * len(photos)
    assert again == first
    shutil.rmtree(tmp_path / "real")
    shutil.rmtree(tmp_path / "fake")
    matches = find_matches(again.facts)
    assert [{photos[match.first].name, photos[match.second].name} for match in matches] == [{"real/000.jpg", "fake/copy.jpg"}]


@pytest.mark.slow
def test_any_file_name_trains_and_is_told_in_every_file_of_the_run(tmp_path: Path) -> None:
    data = draw_set(tmp_path / os.fsdecode(b"d\xe9ta"), train=20, validation=6)
    odd = os.fsdecode(b"caf\xe9.jpg")
    for photo in data.glob("*/*/000.jpg"):
        photo.rename(photo.with_name(odd))
    (data / "Train" / "Real" / os.fsdecode(b"br\xf6ken.jpg")).write_text("no photo")
    run = tmp_path / os.fsdecode(b"r\xfcn")
    assert fit("--data", data, "--out", run, "--epochs", 1, *TINY, "--calibration", "auto") == 0
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert list(metrics["unreadable"]) == ["Train/Real/br\\xf6ken.jpg"]
    assert metrics["calibration"]["method"] == "none", "four photos are held out"
    names = [row["name"] for row in csv.DictReader((run / "scores.csv").open(encoding="utf-8", newline=""))]
    assert sum("caf\\xe9.jpg" in name for name in names) == 4
    assert "d\\xe9ta" in (run / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert main(["audit", str(data), "--out", str(tmp_path / "audit")]) == 0
    evaluated = ["evaluate", "--checkpoint", str(run / "best_model.pth"), "--data", str(data), "--out", str(tmp_path / "e")]
    assert main(evaluated) == 0
    assert main(["calibrate", "--run", str(run), "--data", str(data)]) == 0
