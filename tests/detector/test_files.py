"""Files are written whole or not at all, and errors name them whatever their names are."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from detector.errors import FileError
from detector.files import atomic_write, read_json, shown, write_json


def write_half(path: Path) -> None:
    with atomic_write(path) as partial:
        partial.write_text("half of")
        raise RuntimeError


def test_a_write_that_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"n": 1})
    with pytest.raises(RuntimeError):
        write_half(file)
    assert json.loads(file.read_text()) == {"n": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_not_there_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(FileError, match=r"nowhere/a\.json: can't be written \(No such file or directory\)"):
        write_json(tmp_path / "nowhere" / "a.json", {})


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file; fit writes it"), (b"{", "can't be read as JSON; fit"), (b"[1]", "JSON object"), (b"\xff", "JSON")],
)
def test_what_is_no_json_object_is_an_error_that_names_the_file(tmp_path, content, reason):
    file = tmp_path / "m.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FileError, match=f"m.json: .*{reason}"):
        read_json(file, hint="fit writes it")


def test_a_name_that_is_not_utf_8_is_shown_and_written():
    path = Path(os.fsdecode(b"caf\xe9.jpg"))
    assert shown(path) == "caf\\xe9.jpg"
    shown(path).encode()  # any stream takes it


def test_a_name_that_is_not_utf_8_travels_through_json(tmp_path):
    write_json(tmp_path / "m.json", {"name": os.fsdecode(b"caf\xe9.jpg")})
    assert read_json(tmp_path / "m.json")["name"] == os.fsdecode(b"caf\xe9.jpg")
