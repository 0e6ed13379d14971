"""Photos of Parquet files and webdataset shards: which class and which part each belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from re import IGNORECASE, compile

from detector.errors import FileError
from detector.files import shown
from detector.packed import Entry, entries
from training.errors import DataProblem

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_SPLIT = compile(r"(train|validation|valid|val|dev|test)(?![a-z])", IGNORECASE)
_NAMES = {"train": TRAIN, "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION, "test": TEST}
_HINT = "name the labels real and fake, or say which is which: --labels real=NAME,fake=NAME"

Found = tuple[Entry, int, str | None]  # with its label and its part


def labels_of(text: str | None, classes: Mapping[str, int]) -> dict[str, int]:
    """What the labels in such files mean: `real=human,fake=ai` in small letters, or the classes' own names without it.

    Raises `DataProblem` for a text of another form.
    """
    if not text:
        return dict(classes)
    meant: dict[str, int] = {}
    for pair in text.split(","):
        name, equals, written = (piece.strip() for piece in pair.partition("="))
        if name.lower() not in classes or not equals or not written or written.lower() in meant:
            raise DataProblem(
                f"--labels {text!r}: give real=NAME,fake=NAME; one class may have several, as fake=gan,fake=swap"
            )
        meant[written.lower()] = classes[name.lower()]
    if set(meant.values()) != set(classes.values()):
        raise DataProblem(f"--labels {text!r}: names only one class; give real=NAME,fake=NAME")
    return meant


def find_packed(files: Sequence[Path], root: Path, meant: Mapping[str, int]) -> list[Found]:
    """The photos in the files, in their order. Parts are those that file names or folders say, such as train-0001.parquet.

    Where there are train and validation files, test files are left out; without validation files they stand for them. One part
    alone is none. Raises `DataProblem` for a label that `meant` does not have, or none.
    """
    splits = {file: _split(file.relative_to(root.parent if root.is_file() else root)) for file in files}
    there = set(splits.values()) - {None}
    held_out = VALIDATION if VALIDATION in there else TEST
    divided = {TRAIN, held_out} <= there
    found: list[Found] = []
    for file in files:
        if divided and splits[file] not in (TRAIN, held_out):
            continue
        name = file.name if root.is_file() else file.relative_to(root).as_posix()
        try:
            inside = entries(file, shown(name))
        except FileError as error:
            raise DataProblem(error.message) from None
        part = (TRAIN if splits[file] == TRAIN else VALIDATION) if divided else None
        found += [(entry, _class(entry, meant), part or _part(entry)) for entry in inside]
    parts = Counter(part for _, _, part in found)
    return found if parts[TRAIN] and parts[VALIDATION] else [(entry, label, None) for entry, label, _ in found]


def _split(file: Path) -> str | None:
    """The split that a file's name begins with, or one of its folders is called."""
    for name in (file.name, *reversed(file.parts[:-1])):
        if match := _SPLIT.match(name):
            return _NAMES[match[1].lower()]
    return None


def _part(entry: Entry) -> str | None:
    return next((folder.lower() for folder in entry.folders if folder.lower() in (TRAIN, VALIDATION)), None)


def _class(entry: Entry, meant: Mapping[str, int]) -> int:
    """The class by the entry's label; without one, by the class folder that its name says it lies in."""
    if entry.label is not None:
        if (label := meant.get(entry.label.strip().lower())) is not None:
            return label
        known = ", ".join(meant)
        raise DataProblem(f"{entry.name}: has the label {entry.label[:40]!r}, and {known} are known; {_HINT}")
    for folder in entry.folders:
        if (label := meant.get(folder.lower())) is not None:
            return label
    raise DataProblem(
        f"{entry.name}: has no label; a Parquet file has them in a column `label`, a tar file in KEY.cls or KEY.json"
    )
