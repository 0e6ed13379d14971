"""Tar shards: photos found by their headers and read from their place; nothing is unpacked to disk."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EIO
from pathlib import Path
from typing import Any

from detector.errors import FileError
from detector.files import PHOTO_SUFFIXES, shown
from detector.packed.entries import Entry

LARGEST_HEADER = 1 << 20  # bytes of one header with its extensions
LARGEST_LABEL = 1 << 20  # bytes of a .cls or .json file
_LABEL_KEYS = ("label", "cls", "class")


@dataclass(frozen=True, slots=True)
class Member:
    """Bytes of a file from `offset` on."""

    file: Path
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """All `size` bytes. Raises `OSError` when the file has become shorter."""
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            data = stream.read(self.size)
        if len(data) != self.size:
            raise OSError(EIO, "the tar file ends before the photo does")
        return data


class _Headers(io.BufferedReader):
    """A file of which tarfile reads headers alone: one that says it is as large as memory is refused."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def tar_entries(file: Path, name: str) -> list[Entry]:
    """The photos of a webdataset shard: `KEY.jpg` with its label in `KEY.cls`, or in `KEY.json` under label, cls or class.

    A photo without either has no label of its own. Links, devices and sparse members are passed over, and names are never
    used as paths. Raises `FileError` for a damaged file, a member that does not end inside it, or a label that can't be read.
    """
    photos: list[tuple[str, str, Member]] = []
    labels: dict[str, str] = {}
    for path, member in _members(file):
        folder, _, base = path.rpartition("/")
        stem, dot, extension = base.partition(".")
        key, extension = f"{folder}/{stem}", f".{extension.lower()}"
        if not stem or not dot:
            continue
        if f".{extension.rpartition('.')[2]}" in PHOTO_SUFFIXES:
            photos.append((key, path, member))
        elif extension in (".cls", ".json"):
            if member.size > LARGEST_LABEL:
                raise FileError(f"{shown(file)}: {shown(path)} has {member.size} bytes, and holds a label")
            found = _label(member.read_bytes(), extension, f"{shown(file)}: {shown(path)}")
            if found is not None:
                labels[key] = found
    return [
        Entry(f"{name}/{shown(path)}", labels.get(key), member, tuple(path.split("/")[:-1])) for key, path, member in photos
    ]


def _members(file: Path) -> Iterator[tuple[str, Member]]:
    """Name and place of each regular file."""
    try:
        size = file.stat().st_size
        with _Headers(io.FileIO(file)) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # a shard of a million files would keep them all
                if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.sparse is not None:
                    continue
                if info.size < 0 or info.offset_data + info.size > size:
                    raise FileError(f"{shown(file)}: {shown(info.name)} is said to end after the file does; copy it anew")
                yield info.name, Member(file, info.offset_data, info.size)
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{shown(file)}: can't be read as a tar file ({reason}); copy it anew") from None


def _label(data: bytes, extension: str, where: str) -> str | None:
    try:
        text = data.decode("utf-8").strip()
        if extension == ".cls":
            return text
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise FileError(f"{where}: can't be read as {'text' if extension == '.cls' else 'JSON'}") from None
    found = next((values[key] for key in _LABEL_KEYS if key in values), None) if isinstance(values, dict) else values
    return str(found) if isinstance(found, (str, int)) else None
