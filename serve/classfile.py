"""Edits a compiled Java class: constants added or reworded, instructions put in (JVM specification, chapter 4)."""

from __future__ import annotations

import struct

_POOL_SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
_UTF8, _LONG, _DOUBLE = 1, 5, 6


class JavaClass:
    """A class file in memory. Constants get their number when they are asked for; `data` is the file with all edits."""

    def __init__(self, data: bytes) -> None:
        self._head = data[:8]
        count = int.from_bytes(data[8:10], "big")
        self._pool: list[bytes | None] = [None]
        at = 10
        while len(self._pool) < count:
            tag = data[at]
            end = at + 3 + int.from_bytes(data[at + 1 : at + 3], "big") if tag == _UTF8 else at + 1 + _POOL_SIZES[tag]
            self._pool.append(data[at:end])
            if tag in (_LONG, _DOUBLE):  # takes two places
                self._pool.append(None)
            at = end
        self._body = data[at:]

    @property
    def data(self) -> bytes:
        """The class file."""
        pool = b"".join(entry for entry in self._pool if entry is not None)
        return self._head + struct.pack(">H", len(self._pool)) + pool + self._body

    def text(self, value: str) -> int:
        """Number of a Utf8 constant."""
        return self._constant(_utf8(value))

    def of_class(self, name: str) -> int:
        """Number of a Class constant."""
        return self._constant(struct.pack(">BH", 7, self.text(name)))

    def string(self, value: str) -> int:
        """Number of a String constant."""
        return self._constant(struct.pack(">BH", 8, self.text(value)))

    def member(self, kind: str, owner: str, name: str, descriptor: str) -> int:
        """Number of a reference to a `field`, a `method` or an interface's method (`interface`)."""
        tag = {"field": 9, "method": 10, "interface": 11}[kind]
        named = self._constant(struct.pack(">BHH", 12, self.text(name), self.text(descriptor)))
        return self._constant(struct.pack(">BHH", tag, self.of_class(owner), named))

    def reword(self, old: str, new: str) -> None:
        """Replace the text of a constant wherever it is used."""
        self._pool[self._pool.index(_utf8(old))] = _utf8(new)

    def splice(self, method: str, old: bytes, new: bytes, *, stack: int) -> None:
        """Put instructions in the place of others in a method; at its start when `old` is empty.

        method: a name that no other method has. old: bytes that occur there once. stack: how many values may lie on the
        stack while `new` runs. No jump may cross the place; what debuggers read is dropped.
        """
        at = self._code_attribute(method)
        length = int.from_bytes(self._body[at + 2 : at + 6], "big")
        content = self._body[at + 6 : at + 6 + length]
        most, local, size = struct.unpack_from(">HHI", content)
        code, rest = content[8 : 8 + size], content[8 + size :]
        assert not old or code.count(old) == 1
        start = code.index(old)
        behind, growth = start + len(old), len(new) - len(old)
        code = code[:start] + new + code[behind:]
        made = [struct.pack(">HHI", max(most, stack), local, len(code)), code, *_moved_tables(self, rest, behind, growth)]
        replaced = b"".join(made)
        self._body = self._body[: at + 2] + struct.pack(">I", len(replaced)) + replaced + self._body[at + 6 + length :]

    def name(self, number: int) -> str:
        """The text of a Utf8 constant."""
        entry = self._pool[number]
        assert entry is not None
        assert entry[0] == _UTF8
        return entry[3:].decode("utf-8", "replace")

    def _constant(self, entry: bytes) -> int:
        if entry not in self._pool:
            self._pool.append(entry)
        return self._pool.index(entry)

    def _code_attribute(self, method: str) -> int:
        """Offset in the body of the Code attribute of a method."""
        at = 8 + 2 * self._short(6)
        for members in ("fields", "methods"):
            count, at = self._short(at), at + 2
            for _ in range(count):
                name, attributes, at = self.name(self._short(at + 2)), self._short(at + 6), at + 8
                for _ in range(attributes):
                    if members == "methods" and name == method and self.name(self._short(at)) == "Code":
                        return at
                    at += 6 + int.from_bytes(self._body[at + 2 : at + 6], "big")
        raise ValueError(f"no method {method!r} with code")

    def _short(self, at: int) -> int:
        return int.from_bytes(self._body[at : at + 2], "big")


def _utf8(value: str) -> bytes:
    return struct.pack(">BH", _UTF8, len(value.encode())) + value.encode()


def _moved_tables(owner: JavaClass, rest: bytes, behind: int, growth: int) -> list[bytes]:
    """What follows the code: exception handlers and stack frames, those from offset `behind` on moved by `growth`."""
    count = int.from_bytes(rest[:2], "big")
    handlers = [struct.unpack_from(">HHHH", rest, 2 + 8 * i) for i in range(count)]
    moved = [(*(pc + growth * (pc >= behind) for pc in handler[:3]), handler[3]) for handler in handlers]
    at = 2 + 8 * count
    attributes = int.from_bytes(rest[at : at + 2], "big")
    at += 2
    kept = []
    for _ in range(attributes):
        number, length = struct.unpack_from(">HI", rest, at)
        if owner.name(number) == "StackMapTable":
            frames = _moved_frames(rest[at + 6 : at + 6 + length], behind, growth)
            kept.append(struct.pack(">HI", number, len(frames)) + frames)
        at += 6 + length
    return [struct.pack(">H", count), *(struct.pack(">HHHH", *row) for row in moved), struct.pack(">H", len(kept)), *kept]


def _moved_frames(table: bytes, behind: int, growth: int) -> bytes:
    """Frames say how far each lies from the one before, so the first behind the place is all that changes."""
    at, offset = 2, -1
    for _ in range(int.from_bytes(table[:2], "big")):
        kind = table[at]
        delta = kind & 63 if kind < 128 else int.from_bytes(table[at + 1 : at + 3], "big")
        offset += delta + 1
        if offset >= behind:
            if kind + growth < 64:  # the short form is its own distance
                return table[:at] + bytes([kind + growth]) + table[at + 1 :]
            assert kind >= 247
            return table[: at + 1] + struct.pack(">H", delta + growth) + table[at + 3 :]
        at = _frame_end(table, at)
    return table


def _frame_end(table: bytes, at: int) -> int:
    kind = table[at]
    if kind < 64:
        return at + 1
    if kind < 128:
        return _types_end(table, at + 1, 1)
    if kind == 247:
        return _types_end(table, at + 3, 1)
    if kind < 252:
        return at + 3
    if kind < 255:
        return _types_end(table, at + 3, kind - 251)
    at += 3
    for _ in ("locals", "stack"):
        at = _types_end(table, at + 2, int.from_bytes(table[at : at + 2], "big"))
    return at


def _types_end(table: bytes, at: int, count: int) -> int:
    for _ in range(count):
        at += 3 if table[at] in (7, 8) else 1  # an object's class, or where it was made, follows
    return at
