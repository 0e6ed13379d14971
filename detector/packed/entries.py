"""Entries: the photos in a file that holds many, each with its name, its label and a way to its bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from detector.errors import FileError
from detector.files import shown

PACKED_SUFFIXES = (".parquet", ".tar")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Readable(Protocol):
    """Where the bytes of a photo are: a path, or a place in a file."""

    def read_bytes(self) -> bytes:
        """All of them. Raises `OSError`, whose `strerror` says why they can't be had."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One photo. name: the file's, `/`, and its own there. label: as it is written, or the name that the file gives it; None
    where there is none. folders: that the name says it lies in."""

    name: str
    label: str | None
    source: Readable
    folders: tuple[str, ...] = ()

    def read_bytes(self) -> bytes:
        """The encoded photo. Raises `OSError`."""
        return self.source.read_bytes()


def is_packed(path: Path) -> bool:
    """Whether a file is one that holds many photos, by its name.

    Raises `FileError` for a compressed tar file, in which no photo can be found without unpacking those before it.
    """
    name = path.name.lower()
    if name.endswith(_COMPRESSED) and path.is_file():
        raise FileError(f"{shown(path)}: is compressed; unpack it to a .tar file, whose photos are compressed already")
    return name.endswith(PACKED_SUFFIXES) and path.is_file()


def packed_files(path: Path) -> list[Path]:
    """The file itself, or all such files in a folder and its subfolders, sorted; raises as `is_packed` does."""
    if not path.is_dir():
        return [path] if is_packed(path) else []
    found = [Path(parent, name) for parent, _, names in os.walk(path) for name in names if not name.startswith(".")]
    return sorted(file for file in found if is_packed(file))


def entries(file: Path, name: str) -> list[Entry]:
    """The photos of a file, in its order; their names begin with `name`. Raises `FileError` that says what is wrong where."""
    if file.name.lower().endswith(".tar"):
        from detector.packed.tarred import tar_entries

        return tar_entries(file, name)
    from detector.packed.parquet import parquet_entries

    return parquet_entries(file, name)
