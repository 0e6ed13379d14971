"""Reads and writes compiled Java classes (JVM specification, chapter 4).

Numbers are big-endian. What is not changed is written back byte for byte.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from serve.errors import ClassFileError

MAGIC = 0xCAFEBABE
UTF8, LONG, DOUBLE, CLASS, STRING, FIELD, METHOD, INTERFACE_METHOD, NAME_AND_TYPE = 1, 5, 6, 7, 8, 9, 10, 11, 12
# Bytes after the tag of each constant; a Utf8 says its own length.
_SIZES = {3: 4, 4: 4, LONG: 8, DOUBLE: 8, CLASS: 2, STRING: 2, FIELD: 4, METHOD: 4, INTERFACE_METHOD: 4, NAME_AND_TYPE: 4}
_SIZES |= {15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
_LARGEST = 0xFFFF  # of a length or a constant's number


class Reader:
    """Takes numbers and bytes off the front of some bytes. Raises `ClassFileError` when they end early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if self._at + size > len(self._data):
            raise ClassFileError(f"the class file ends early: {size} bytes wanted at {self._at}, {len(self._data)} in all")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """The next `size` bytes as an unsigned number."""
        return int.from_bytes(self.take(size), "big")

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)


@dataclass
class Attribute:
    """A named piece of a class, a member or a method's code. name: number of its Utf8 constant."""

    name: int
    content: bytes

    def write(self) -> bytes:
        """Its bytes."""
        return struct.pack(">HI", self.name, len(self.content)) + self.content


@dataclass
class Member:
    """A field or a method. name, descriptor: numbers of Utf8 constants."""

    access: int
    name: int
    descriptor: int
    attributes: list[Attribute]

    def write(self) -> bytes:
        """Its bytes."""
        return struct.pack(">HHH", self.access, self.name, self.descriptor) + write_attributes(self.attributes)


class JavaClass:
    """A class in memory. A constant is added when its number is asked for and it is not there yet.

    Raises `ClassFileError` when `data` is not a class file.
    """

    def __init__(self, data: bytes) -> None:
        reader = Reader(data)
        if reader.number(4) != MAGIC:
            raise ClassFileError("not a class file: it does not begin with CAFEBABE")
        self._version = reader.take(4)
        self._constants = _read_constants(reader)
        self._kind = reader.take(6)  # access flags, this class, its parent
        self._interfaces = reader.take(2 * reader.number(2))
        self.fields = _read_members(reader)
        self.methods = _read_members(reader)
        self.attributes = read_attributes(reader)
        if left := reader.rest():
            raise ClassFileError(f"{len(left)} bytes follow the end of the class")

    def write(self) -> bytes:
        """The class file."""
        return b"".join(
            [
                struct.pack(">I", MAGIC) + self._version,
                struct.pack(">H", len(self._constants)),
                *(constant for constant in self._constants if constant is not None),
                self._kind + struct.pack(">H", len(self._interfaces) // 2) + self._interfaces,
                *(_write_members(members) for members in (self.fields, self.methods)),
                write_attributes(self.attributes),
            ]
        )

    def text(self, number: int) -> str:
        """The text of a Utf8 constant. Raises `ClassFileError` when the constant is of another kind."""
        constant = self._constants[number] if number < len(self._constants) else None
        if constant is None or constant[0] != UTF8:
            raise ClassFileError(f"constant {number} is not a text")
        return _decode(constant[3:])

    def utf8(self, value: str) -> int:
        """Number of the Utf8 constant."""
        return self._number(_utf8(value))

    def class_(self, name: str) -> int:
        """Number of the Class constant, of a name such as `java/io/File`."""
        return self._number(struct.pack(">BH", CLASS, self.utf8(name)))

    def string(self, value: str) -> int:
        """Number of the String constant."""
        return self._number(struct.pack(">BH", STRING, self.utf8(value)))

    def reference(self, tag: int, owner: str, name: str, descriptor: str) -> int:
        """Number of a reference to a field or method; tag: `FIELD`, `METHOD` or `INTERFACE_METHOD`."""
        owner_number = self.class_(owner)
        named = self._number(struct.pack(">BHH", NAME_AND_TYPE, self.utf8(name), self.utf8(descriptor)))
        return self._number(struct.pack(">BHH", tag, owner_number, named))

    def replace_text(self, old: str, new: str) -> None:
        """Replace the text of a constant wherever it is used. Raises `ClassFileError` when `old` is not there."""
        if _utf8(old) not in self._constants:
            raise ClassFileError(f"no constant {old!r}")
        self._constants[self._constants.index(_utf8(old))] = _utf8(new)

    def method(self, name: str) -> Member:
        """The method of this name, or of this name and descriptor, such as `close` or `close:()V`.

        Raises `ClassFileError` when there is none, or more than one.
        """
        found = [member for member in self.methods if name in self._names(member)]
        if len(found) != 1:
            raise ClassFileError(f"{len(found)} methods are called {name}, and one was expected")
        return found[0]

    def _names(self, member: Member) -> tuple[str, str]:
        name = self.text(member.name)
        return name, f"{name}:{self.text(member.descriptor)}"

    def _number(self, constant: bytes) -> int:
        if constant not in self._constants:
            if len(self._constants) >= _LARGEST:
                raise ClassFileError(f"a class holds at most {_LARGEST - 1} constants")
            self._constants.append(constant)
        return self._constants.index(constant)


def read_attributes(reader: Reader) -> list[Attribute]:
    """A count and so many attributes."""
    return [Attribute(reader.number(2), reader.take(reader.number(4))) for _ in range(reader.number(2))]


def write_attributes(attributes: list[Attribute]) -> bytes:
    """The bytes of `read_attributes`."""
    return struct.pack(">H", len(attributes)) + b"".join(attribute.write() for attribute in attributes)


def _read_constants(reader: Reader) -> list[bytes | None]:
    """The constants with their tags, by number: number 0 is none, and a long or a double takes two numbers."""
    constants: list[bytes | None] = [None]
    count = reader.number(2)
    while len(constants) < count:
        tag = reader.number(1)
        if tag == UTF8:
            length = reader.take(2)
            constants.append(bytes([tag]) + length + reader.take(int.from_bytes(length, "big")))
        elif tag in _SIZES:
            constants.append(bytes([tag]) + reader.take(_SIZES[tag]))
        else:
            raise ClassFileError(f"constant {len(constants)} is of an unknown kind: {tag}")
        if tag in (LONG, DOUBLE):
            constants.append(None)
    if len(constants) != count:
        raise ClassFileError(f"{count} constants were announced, and the last takes one number more")
    return constants


def _read_members(reader: Reader) -> list[Member]:
    return [
        Member(reader.number(2), reader.number(2), reader.number(2), read_attributes(reader)) for _ in range(reader.number(2))
    ]


def _write_members(members: list[Member]) -> bytes:
    return struct.pack(">H", len(members)) + b"".join(member.write() for member in members)


def _utf8(value: str) -> bytes:
    content = _encode(value)
    if len(content) > _LARGEST:
        raise ClassFileError(f"a text of {len(content)} bytes is too long for a constant; {_LARGEST} fit")
    return struct.pack(">BH", UTF8, len(content)) + content


def _encode(value: str) -> bytes:
    """Modified UTF-8 (4.4.7): NUL takes two bytes, and what lies beyond U+FFFF is written as two surrogates."""
    units = value.encode("utf-16-be", "surrogatepass")
    characters = (chr(int.from_bytes(units[at : at + 2], "big")) for at in range(0, len(units), 2))
    return b"".join(b"\xc0\x80" if c == "\0" else c.encode("utf-8", "surrogatepass") for c in characters)


def _decode(content: bytes) -> str:
    try:
        surrogates = content.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise ClassFileError(f"a text is not in modified UTF-8: {error.reason} at byte {error.start}") from None
    return surrogates.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "surrogatepass")
