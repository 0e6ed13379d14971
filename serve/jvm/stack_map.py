"""The `StackMapTable` of a method: the types that the JVM's verifier finds at the targets of jumps (specification, 4.7.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from serve.errors import ClassFileError
from serve.jvm.classfile import Reader

_OBJECT, _UNINITIALIZED = 7, 8  # types that a class, or the place of a `new`, follows
_ONE_ITEM, _ONE_ITEM_FAR, _SAME_FAR, _FULL = 64, 247, 251, 255


@dataclass(frozen=True)
class Frame:
    """What is known at one place of the code. kind: as in the file, without the distance that the first 128 kinds hold.

    counts: how many types a full frame has as local variables and on the stack.
    """

    at: int
    kind: int
    types: tuple[bytes, ...]
    counts: tuple[int, ...] = ()


def read_frames(table: bytes) -> list[Frame]:
    """The frames of a `StackMapTable`."""
    reader, frames, before = Reader(table), [], -1
    for _ in range(reader.number(2)):
        tag = reader.number(1)
        if 2 * _ONE_ITEM <= tag < _ONE_ITEM_FAR:
            raise ClassFileError(f"a stack frame is of an unknown kind: {tag}")
        distance = tag % _ONE_ITEM if tag < 2 * _ONE_ITEM else reader.number(2)
        kind = {0: _SAME_FAR, 1: _ONE_ITEM_FAR}.get(tag // _ONE_ITEM, tag)
        before += distance + 1
        if kind == _FULL:
            local = _read_types(reader, reader.number(2))
            stack = _read_types(reader, reader.number(2))
            frames.append(Frame(before, kind, local + stack, (len(local), len(stack))))
        else:
            count = 1 if kind == _ONE_ITEM_FAR else max(kind - _SAME_FAR, 0)
            frames.append(Frame(before, kind, _read_types(reader, count)))
    if left := reader.rest():
        raise ClassFileError(f"{len(left)} bytes follow the stack frames")
    return frames


def write_frames(frames: list[Frame]) -> bytes:
    """The `StackMapTable` of frames in the order of their places; distances take one byte where they fit."""
    out, before = [struct.pack(">H", len(frames))], -1
    for frame in frames:
        distance = frame.at - before - 1
        before = frame.at
        short = distance < _ONE_ITEM and frame.kind in (_SAME_FAR, _ONE_ITEM_FAR)
        if short:
            out.append(bytes([distance + (_ONE_ITEM if frame.kind == _ONE_ITEM_FAR else 0)]))
        else:
            out.append(struct.pack(">BH", frame.kind, distance))
        if frame.kind == _FULL:
            local = frame.counts[0]
            for types in (frame.types[:local], frame.types[local:]):
                out += [struct.pack(">H", len(types)), *types]
        else:
            out += frame.types
    return b"".join(out)


def moved(frames: list[Frame], new_place: Callable[[int], int]) -> list[Frame]:
    """The frames with all places changed, those of unfinished `new`s too."""

    def type_moved(content: bytes) -> bytes:
        if content[0] != _UNINITIALIZED:
            return content
        return struct.pack(">BH", content[0], new_place(int.from_bytes(content[1:], "big")))

    return [replace(frame, at=new_place(frame.at), types=tuple(map(type_moved, frame.types))) for frame in frames]


def _read_types(reader: Reader, count: int) -> tuple[bytes, ...]:
    types = []
    for _ in range(count):
        tag = reader.take(1)
        types.append(tag + reader.take(2) if tag[0] in (_OBJECT, _UNINITIALIZED) else tag)
    return tuple(types)
