"""What can be changed in a class: the instructions of a method, and texts."""

from __future__ import annotations

from dataclasses import dataclass

from serve.jvm.assembler import assemble
from serve.jvm.classfile import JavaClass
from serve.jvm.method_code import MethodCode


@dataclass(frozen=True)
class Replace:
    """Instructions put in the place of others in a method; at its start when `old` is empty.

    stack: most values on the stack while `new` runs.
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
class Reword:
    """The text of a constant, replaced."""

    old: str
    new: str

    def apply(self, java: JavaClass) -> None:
        """Change the class."""
        java.replace_text(self.old, self.new)


@dataclass(frozen=True)
class Patch:
    """What is changed in one class; the SHA-256 of its file before and after."""

    original: str
    patched: str
    changes: tuple[Replace | Reword, ...]
