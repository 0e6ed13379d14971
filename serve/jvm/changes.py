"""What can be changed in a class: methods or instructions of theirs, fields, and texts."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from serve.jvm.assembler import assemble
from serve.jvm.classfile import Attribute, JavaClass, Member
from serve.jvm.method_code import MethodCode

PUBLIC, PRIVATE, STATIC = 0x1, 0x2, 0x8  # access flags


def is_equal(value: str, number: str) -> str:
    """`1 - Math.min(Math.abs(value - number), 1)`, which is 1 or 0, as a branch would need a stack frame of its own.

    value, number: the instructions that put each on the stack; three more places of it are used at most.
    """
    return f"""
        iconst_1
        {value}
        {number}
        isub
        invokestatic java/lang/Math.abs:(I)I
        iconst_1
        invokestatic java/lang/Math.min:(II)I
        isub
    """


@dataclass(frozen=True)
class Replace:
    """Instructions put in the place of others in a method; at its start when `old` is empty.

    method: its name, with its descriptor (`close:()V`) where several are called so. stack: most values on the stack while
    `new` runs.
    """

    method: str
    old: str
    new: str
    stack: int = 0

    def apply(self, java: JavaClass) -> None:
        """Change the class."""
        code = MethodCode(java, java.method(self.method))
        code.replace(assemble(java, self.old), assemble(java, self.new), stack=self.stack)


@dataclass(frozen=True)
class Method:
    """A method without jumps: added, or put in the place of the one of its name and descriptor.

    name: with its descriptor, `close:()V`. stack, locals: most values on the stack, and of local variables; a long takes two.
    """

    method: str
    code: str
    stack: int
    locals: int
    access: int = PUBLIC

    def apply(self, java: JavaClass) -> None:
        """Change the class."""
        code = assemble(java, self.code)
        content = struct.pack(">HHI", self.stack, self.locals, len(code)) + code + bytes(4)  # no handlers, no attributes
        name, _, descriptor = self.method.partition(":")
        member = Member(self.access, java.utf8(name), java.utf8(descriptor), [Attribute(java.utf8("Code"), content)])
        java.methods = [each for each in java.methods if (each.name, each.descriptor) != (member.name, member.descriptor)]
        java.methods.append(member)


@dataclass(frozen=True)
class Field:
    """A field that is added. descriptor: its type."""

    name: str
    descriptor: str
    access: int = PRIVATE

    def apply(self, java: JavaClass) -> None:
        """Change the class."""
        java.fields.append(Member(self.access, java.utf8(self.name), java.utf8(self.descriptor), []))


@dataclass(frozen=True)
class Reword:
    """The text of a constant, replaced."""

    old: str
    new: str

    def apply(self, java: JavaClass) -> None:
        """Change the class."""
        java.replace_text(self.old, self.new)


Change = Replace | Method | Field | Reword


@dataclass(frozen=True)
class Patch:
    """What is changed in one class; the SHA-256 of its file before and after."""

    original: str
    patched: str
    changes: tuple[Change, ...]
