"""Files: written whole or not at all, JSON read with an error that names the file, and which files are photos."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from detector.errors import FileError

# Of files that are looked for in folders; a file that is named is read whatever its suffix is.
_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp", ".mpo")
PHOTO_SUFFIXES = frozenset((*_JPEG_SUFFIXES, ".png", ".apng", ".webp", ".avif", ".heic", ".heif", ".hif"))


def has_photo_suffix(path: Path) -> bool:
    """Whether a file's name ends as photos' names do, in any letter case."""
    return path.suffix.lower() in PHOTO_SUFFIXES


def files_below(folder: Path) -> list[Path]:
    """All files in a folder and its subfolders, sorted. Raises `FileError` when one of the folders can't be listed."""

    def refuse(error: OSError) -> NoReturn:
        raise FileError(f"{shown(error.filename or folder)}: can't be listed ({error.strerror or error})") from None

    found = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=refuse) for name in names)
    return sorted(path for path in found if os.path.isfile(path))  # noqa: PTH113 (Path.is_file raises where it may not look)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to, beside `path` and unique to this process, that becomes `path` when the block ends.

    When the block raises, what it wrote is removed and `path` stays as it was.
    Raises `FileError` when the file can't be put in place.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise FileError(f"{shown(path)}: can't be written ({error.strerror or error})") from None
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, values: Any, *, indent: int | None = 2) -> None:
    """Write JSON (RFC 8259: no NaN), whole or not at all. Raises `FileError`."""
    text = json.dumps(values, indent=indent, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as partial:
        partial.write_bytes((text + "\n").encode("utf-8", "backslashreplace"))


def read_json(path: Path, *, hint: str = "") -> dict[str, Any]:
    """The JSON object in a file; NaN and infinity, which JSON has no word for, become None.

    Raises `FileError` that names the file; hint: what writes it, in a few words.
    """
    after = f"; {hint}" if hint else ""
    try:
        values = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)
    except FileNotFoundError:
        raise FileError(f"{shown(path)}: no such file{after}") from None
    except (OSError, ValueError, RecursionError):
        raise FileError(f"{shown(path)}: can't be read as JSON{after}") from None
    if not isinstance(values, dict):
        raise FileError(f"{shown(path)}: can't be read as a JSON object{after}")
    return values


def shown(path: str | os.PathLike[str]) -> str:
    r"""A path as text that any stream and JSON take: bytes that are not UTF-8 are shown as `\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
