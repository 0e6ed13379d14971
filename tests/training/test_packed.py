"""Photos in Parquet files and tar shards: found, divided, audited and trained on as photos in folders are."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from detector import ImageSpec
from export.pictures import photos_in
from tests.detector.test_packed import member, write_parquet, write_tar
from tests.training.conftest import TINY, fit
from training.data.cache import read_photos
from training.data.photos import Photo, find_photos
from training.errors import DataProblem
from unmask.__main__ import main

SPEC = ImageSpec(size=32)


def as_parquet(photos: Sequence[Photo], folder: Path) -> Path:
    """Two files a split, as a repository of the hub has them, with class names in the schema."""
    (folder / "data").mkdir(parents=True)
    for part, split in (("train", "train"), ("validation", "test")):
        own = [photo for photo in photos if photo.part == part]
        for k, half in enumerate((own[::2], own[1::2])):
            file = folder / "data" / f"{split}-0000{k}-of-00002.parquet"
            labels = [1 - photo.label for photo in half]
            write_parquet(file, [photo.path.read_bytes() for photo in half], labels, names=["FAKE", "real"], row_group_size=20)
    return folder


def as_shards(photos: Sequence[Photo], folder: Path) -> Path:
    """A shard a split, labels as numbers in .cls files."""
    folder.mkdir()
    for part, split in (("train", "train"), ("validation", "val")):
        own = [photo for photo in photos if photo.part == part]
        members = [
            found
            for i, photo in enumerate(own)
            for found in (member(f"{i:04d}.jpg", photo.path.read_bytes()), member(f"{i:04d}.cls", str(photo.label).encode()))
        ]
        write_tar(folder / f"{split}-000000.tar", members)
    return folder


def shape(photos: Sequence[Photo]) -> list[tuple[bytes, int, str | None]]:
    return sorted((photo.path.read_bytes(), photo.label, photo.part) for photo in photos)


def test_the_same_photos_are_found_in_parquet_in_shards_and_in_folders(tiny_set: Path, tmp_path: Path) -> None:
    photos = find_photos(tiny_set)
    in_parquet = find_photos(as_parquet(photos, tmp_path / "parquet"))
    in_shards = find_photos(as_shards(photos, tmp_path / "shards"), labels="real=0,fake=1")
    assert shape(in_parquet) == shape(in_shards) == shape(photos)
    assert in_parquet[0].name == "data/test-00000-of-00002.parquet/00/0.jpg"
    assert in_shards[0].name == "train-000000.tar/0000.jpg"
    read = [read_photos(found, SPEC, tmp_path / f"cache{i}") for i, found in enumerate((photos, in_parquet, in_shards))]
    facts = [sorted(repr(fact) for fact in one.facts) for one in read]
    assert facts[0] == facts[1] == facts[2]
    assert [one.cache.unreadable for one in read] == [{}, {}, {}]


def test_labels_that_do_not_say_which_is_fake_are_refused_with_the_option(tiny_set: Path, tmp_path: Path) -> None:
    shards = as_shards(find_photos(tiny_set), tmp_path / "shards")
    with pytest.raises(
        DataProblem, match=r"train-000000\.tar/0000\.jpg: has the label '\d', and real, fake are known; .*--labels"
    ):
        find_photos(shards)
    for wrong in ("real", "real=0", "real=0,fake=0", "human=0,fake=1"):
        with pytest.raises(DataProblem, match="--labels"):
            find_photos(shards, labels=wrong)
    with pytest.raises(DataProblem, match="one class alone"):
        find_photos(shards, labels="fake=0, fake=1, real=none")


def test_a_tar_file_of_class_folders_needs_no_labels(tiny_set: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.add(tiny_set, arcname="set")
    found = find_photos(tmp_path / "set.tar")
    assert shape(found) == shape(find_photos(tiny_set))
    assert found[0].name.startswith("set.tar/set/Train/Fake/")


def test_test_files_are_left_out_beside_validation_files_and_one_split_is_none(tiny_set: Path, tmp_path: Path) -> None:
    photo = next(iter(find_photos(tiny_set))).path.read_bytes()
    for split in ("train", "validation", "test"):
        write_parquet(tmp_path / f"{split}-0.parquet", [photo + split.encode()] * 2, ["real", "fake"])
    assert {p.part for p in find_photos(tmp_path)} == {"train", "validation"}
    assert not any(p.name.startswith("test") for p in find_photos(tmp_path))
    assert {p.part for p in find_photos(tmp_path / "test-0.parquet")} == {None}


def test_rows_without_bytes_and_damaged_photos_are_skipped_and_named(tiny_set: Path, tmp_path: Path) -> None:
    good = [photo.path.read_bytes() for photo in find_photos(tiny_set)[:2]]
    write_parquet(tmp_path / "a.parquet", [*good, None, b"no photo"], ["real", "fake", "real", "fake"])
    read = read_photos(find_photos(tmp_path), SPEC, tmp_path / "cache")
    assert set(read.cache.unreadable) == {"a.parquet/2/2.jpg", "a.parquet/3/3.jpg"}
    assert "row 2 holds no bytes" in read.cache.unreadable["a.parquet/2/2.jpg"]


@pytest.mark.slow
def test_a_run_on_parquet_reports_what_one_on_folders_does(
    tiny_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = as_parquet(find_photos(tiny_set), tmp_path / "parquet")
    shards = as_shards(find_photos(tiny_set), tmp_path / "shards")
    assert main(["audit", str(shards), "--labels", "real=0,fake=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["validation"] == {"real": 30, "fake": 30}
    assert fit("--data", data, "--out", tmp_path / "run", "--epochs", 2, *TINY) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["validation"]["n"] == 60
    names = [line.partition(",")[0] for line in (tmp_path / "run" / "scores.csv").read_text().splitlines()[1:]]
    assert names[0].startswith("data/test-0000")
    capsys.readouterr()
    checkpoint = tmp_path / "run" / "best_model.pth"
    assert (
        main(["evaluate", "--checkpoint", str(checkpoint), "--data", str(shards), "--labels", "real=0,fake=1", "--json"]) == 0
    )
    evaluation = json.loads(capsys.readouterr().out)
    assert evaluation["validation"]["auc"]["value"] == pytest.approx(metrics["validation"]["auc"]["value"], abs=1e-3)
    assert main(["calibrate", "--run", str(tmp_path / "run"), "--data", str(data)]) == 0
    assert photos_in(data, SPEC, 40).shape == photos_in(shards / "train-000000.tar", SPEC, 40).shape == (40, 32, 32, 3)
