"""Parquet files as Hugging Face datasets write them: an image column and a label column, read a few rows at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from errno import EIO
from pathlib import Path
from threading import Lock
from typing import Any

from detector.errors import FileError
from detector.files import shown
from detector.packed.entries import Entry

IMAGES, LABELS = ("image", "img", "photo", "picture", "jpg", "png", "webp"), ("label", "labels", "class", "target", "cls")
ROWS = 32  # read at once: photos of one batch are in memory
MOST_ROWS = 20_000_000
LARGEST_GROUP = 8 << 30  # bytes of a row group's photos, uncompressed, as the file says


@dataclass(eq=False)
class Table:
    """The image column of a file. Rows are read in order at the cost of one pass; one that lies before starts a pass anew."""

    file: Path
    column: str
    nested: bool
    _lock: Lock = field(default_factory=Lock)
    _batches: Iterator[Any] | None = None
    _now: tuple[int, list[Any]] = (0, [])
    _before: tuple[int, list[Any]] = (0, [])

    def row(self, row: int) -> bytes:
        """The encoded photo of a row. Raises `OSError` whose `strerror` says why it can't be had."""
        with self._lock:
            while (value := self._held(row)) is None:
                self._advance(row)
        data = value[0].get("bytes") if self.nested and value[0] is not None else value[0]
        if data is None:
            raise OSError(EIO, f"row {row} holds no bytes; a path or an address in their place is not followed")
        return bytes(data)

    def _held(self, row: int) -> list[Any] | None:
        """The row's value in a list, where its batch is in memory: threads ask for rows a little out of order."""
        for start, values in (self._now, self._before):
            if start <= row < start + len(values):
                return [values[row - start]]
        return None

    def _advance(self, row: int) -> None:
        import pyarrow
        from pyarrow.parquet import ParquetFile

        try:
            after = self._now[0] + len(self._now[1])
            if self._batches is None or row < after or row >= after + 64 * ROWS:
                table = ParquetFile(self.file, pre_buffer=False, buffer_size=1 << 16)
                first, groups = 0, list(range(table.metadata.num_row_groups))
                while groups and first + table.metadata.row_group(groups[0]).num_rows <= row:
                    first += table.metadata.row_group(groups.pop(0)).num_rows
                self._batches = table.iter_batches(ROWS, row_groups=groups, columns=[self.column], use_threads=False)
                self._before, self._now = (0, []), (first, [])
            batch = next(self._batches, None)
        except (pyarrow.ArrowException, OSError, MemoryError, ValueError) as error:
            self._batches, self._now = None, (0, [])
            raise OSError(EIO, f"the Parquet file can't be read at row {row} ({str(error).splitlines()[0]})") from None
        if batch is None:
            raise OSError(EIO, f"the Parquet file ends before row {row}")
        start = self._now[0] + len(self._now[1])
        self._before, self._now = self._now, (start, batch.column(0).to_pylist())


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    table: Table
    row: int

    def read_bytes(self) -> bytes:
        """The encoded photo. Raises `OSError`."""
        return self.table.row(self.row)


def parquet_entries(file: Path, name: str) -> list[Entry]:
    """The photos of a Parquet file: a column of encoded photos (binary, or a struct with `bytes`) and one of labels.

    A label that the schema's metadata names (`ClassLabel`) has that name; else it is as it is written.
    Raises `FileError` where pyarrow is missing, the file is damaged, or there is no column of photos.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise FileError(f"{shown(file)}: Parquet needs pyarrow; pip install 'unmask[parquet]'") from None
    try:
        table = ParquetFile(file, pre_buffer=False)
        schema, features = table.schema_arrow, _features(table.schema_arrow.metadata)
        _check_size(file, table.metadata)
        images, labels = _image_column(file, schema, features), _label_column(schema, features)
        written = _strings(table, labels, features.get(labels or "", {}).get("names"))
        nested = pyarrow.types.is_struct(schema.field(images).type)
        paths = _paths(table, images) if nested and schema.field(images).type.get_field_index("path") >= 0 else None
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise FileError(f"{shown(file)}: can't be read as Parquet ({str(error).splitlines()[0]})") from None
    column = Table(file, images, nested)
    found, digits = [], len(str(table.metadata.num_rows))
    for row in range(table.metadata.num_rows):
        path = paths[row] if paths else None
        folders = tuple(path.replace("\\", "/").split("/")[:-1]) if path else ()
        own = f"/{shown(path.lstrip('/'))}" if path else ""
        found.append(Entry(f"{name}/{row:0{digits}d}{own}", written[row] if written else None, Row(column, row), folders))
    return found


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """What Hugging Face's datasets say of each column; empty without it."""
    try:
        said = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {str(name): feature for name, feature in said.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _check_size(file: Path, metadata: Any) -> None:
    if metadata.num_rows > MOST_ROWS:
        raise FileError(f"{shown(file)}: says that it has {metadata.num_rows} rows; at most {MOST_ROWS} are read")
    largest = max((metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)), default=0)
    if largest > LARGEST_GROUP:
        raise FileError(f"{shown(file)}: has a row group of {largest / 1e9:.0f} GB; write it with smaller row groups")


def _image_column(file: Path, schema: Any, features: dict[str, dict[str, Any]]) -> str:
    from pyarrow import types

    def holds(name: str) -> bool:
        kind = schema.field(name).type
        if types.is_struct(kind) and (index := kind.get_field_index("bytes")) >= 0:
            kind = kind.field(index).type
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    named = [name for name in schema.names if features.get(name, {}).get("_type") == "Image" and holds(name)]
    found = named or [name for name in IMAGES if name in schema.names and holds(name)]
    found = found or [name for name in schema.names if holds(name)]
    if not found or (len(found) > 1 and "image" not in found and found[0] not in IMAGES):
        there = ", ".join(schema.names[:10])
        raise FileError(
            f"{shown(file)}: has no column `image` of encoded photos (binary, or a struct with `bytes`); it has {there}"
        )
    return "image" if "image" in found else str(found[0])


def _label_column(schema: Any, features: dict[str, dict[str, Any]]) -> str | None:
    named = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    found = [name for name in LABELS if name in schema.names] or (named if len(named) == 1 else [])
    return str(found[0]) if found else None


def _strings(table: Any, column: str | None, names: Any) -> list[str | None] | None:
    """The labels of all rows as text, by the names that the file gives to numbers."""
    if column is None:
        return None
    values = table.read(columns=[column]).column(0).to_pylist()
    if isinstance(names, list):
        return [str(names[v]) if isinstance(v, int) and 0 <= v < len(names) else None if v is None else str(v) for v in values]
    return [None if value is None else str(value) for value in values]


def _paths(table: Any, column: str) -> list[str | None]:
    read = table.read(columns=[f"{column}.path"]).column(0).to_pylist()
    return [None if value is None or not isinstance(value.get("path"), str) else value["path"] for value in read]
