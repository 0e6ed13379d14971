"""The photos that are sent: drawn ones are the same each time, and a folder's are spread over it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.photos import drawn_photos, load_photos, refuse_broken
from detector import FileError, ImageSpec, UsageError


def test_drawn_photos_are_256_px_jpegs_and_the_same_each_time() -> None:
    photos, again = drawn_photos(4), drawn_photos(4)
    assert photos == again
    assert len({p.data for p in photos}) == 4
    for photo in photos:
        image = Image.open(BytesIO(photo.data))
        assert (image.format, image.size) == ("JPEG", (256, 256))
        assert 6_000 < len(photo.data) < 20_000
    refuse_broken(photos, ImageSpec())


def test_a_folder_gives_as_many_as_asked_for_spread_over_its_subfolders(tmp_path: Path) -> None:
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        for i in range(10):
            (tmp_path / label / f"{i}.JPG").write_bytes(bytes([i]))
    (tmp_path / "notes.txt").write_text("not a photo")
    names = [p.name for p in load_photos(tmp_path, 4)]
    assert len(set(names)) == 4
    assert sum(name.startswith("fake") for name in names) == 2
    assert len(load_photos(tmp_path, 100)) == 20


def test_a_folder_without_photos_and_a_missing_one_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds no photo"):
        load_photos(tmp_path, 4)
    with pytest.raises(FileError, match="no such folder"):
        load_photos(tmp_path / "nowhere", 4)
    with pytest.raises(UsageError):
        load_photos(None, 0)


def test_a_broken_photo_is_refused_by_name_before_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(drawn_photos(1)[0].data[:500])
    with pytest.raises(FileError, match=r"broken\.jpg"):
        refuse_broken(load_photos(tmp_path, 4), ImageSpec())
