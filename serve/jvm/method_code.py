"""The code of one method, with instructions replaced in it (JVM specification, 4.7.3)."""

from __future__ import annotations

import struct
from collections.abc import Callable

from serve.errors import ClassFileError
from serve.jvm.classfile import Attribute, JavaClass, Member, Reader, read_attributes, write_attributes
from serve.jvm.instructions import JUMPS, SWITCHES, instructions
from serve.jvm.stack_map import moved, read_frames, write_frames

_LONGEST = 0xFFFF  # bytes of a method's code


class MethodCode:
    """A method's `Code`. Raises `ClassFileError` when it has none."""

    def __init__(self, java: JavaClass, method: Member) -> None:
        found = [attribute for attribute in method.attributes if java.text(attribute.name) == "Code"]
        if len(found) != 1:
            raise ClassFileError(f"the method {java.text(method.name)} has no code")
        self._java, self._attribute = java, found[0]
        reader = Reader(self._attribute.content)
        self._stack, self._locals = reader.number(2), reader.number(2)
        self.code = reader.take(reader.number(4))
        self._handlers = [struct.unpack(">HHHH", reader.take(8)) for _ in range(reader.number(2))]
        self._attributes = read_attributes(reader)
        if left := reader.rest():
            raise ClassFileError(f"{len(left)} bytes follow the code of {java.text(method.name)}")

    def replace(self, old: bytes, new: bytes, *, stack: int) -> None:
        """Put instructions in the place of others; at the start when `old` is empty.

        old: whole instructions that occur once. stack: most values on the stack while `new` runs. Jumps, exception handlers
        and stack frames of the rest move along; none may lead into what is replaced, except to its start. What only debuggers
        read is dropped. Raises `ClassFileError`.
        """
        start = self._find(old)
        end, growth = start + len(old), len(new) - len(old)

        def new_place(at: int) -> int:
            if growth and start < at < end:
                raise ClassFileError(f"a jump, a stack frame or an exception handler leads to {at}, within what is replaced")
            return at + growth if at >= end else at

        kept = self._with_jumps_moved(start, end, growth, new_place)
        self.code = kept[:start] + new + kept[end:]
        if len(self.code) > _LONGEST:
            raise ClassFileError(f"the code grows to {len(self.code)} bytes; {_LONGEST} are allowed")
        self._stack = max(self._stack, stack)
        self._handlers = [(*map(new_place, handler[:3]), handler[3]) for handler in self._handlers]
        self._attributes = [
            Attribute(attribute.name, write_frames(moved(read_frames(attribute.content), new_place)))
            for attribute in self._attributes
            if self._java.text(attribute.name) == "StackMapTable"
        ]
        self._attribute.content = self.write()

    def write(self) -> bytes:
        """The content of the `Code` attribute."""
        return b"".join(
            [
                struct.pack(">HHI", self._stack, self._locals, len(self.code)) + self.code,
                struct.pack(">H", len(self._handlers)),
                *(struct.pack(">HHHH", *handler) for handler in self._handlers),
                write_attributes(self._attributes),
            ]
        )

    def _find(self, old: bytes) -> int:
        """Where `old` begins."""
        if not old:
            return 0
        starts = [each.at for each in instructions(self.code) if self.code.startswith(old, each.at)]
        if len(starts) != 1:
            raise ClassFileError(f"the instructions to be replaced occur {len(starts)} times, and once was expected")
        return starts[0]

    def _with_jumps_moved(self, start: int, end: int, growth: int, new_place: Callable[[int], int]) -> bytes:
        """The code with the distances that jumps outside of `start` to `end` will have; it is not yet moved itself."""
        code = bytearray(self.code)
        for each in instructions(self.code):
            if start <= each.at < end:
                continue
            if each.at >= end and each.name in SWITCHES and growth % 4:
                raise ClassFileError(f"the {each.name} at {each.at} would lose its alignment to four bytes")
            for offset, target in zip(each.offsets, each.targets, strict=True):
                size, distance = (2 if each.name in JUMPS else 4), new_place(target) - new_place(each.at)
                try:
                    code[offset : offset + size] = distance.to_bytes(size, "big", signed=True)
                except OverflowError:
                    raise ClassFileError(f"the {each.name} at {each.at} would lead {distance} bytes, too far for it") from None
        return bytes(code)
