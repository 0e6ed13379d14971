"""Turns instructions written as `javap -c` shows them into bytes.

One a line, with what it works on by name instead of by number:

    aload_1
    sipush 503
    ldc_w "Retry-After"
    getstatic io/grpc/Status.INTERNAL:Lio/grpc/Status;
    invokeinterface io/netty/handler/codec/http/HttpResponse.status:()Lio/netty/handler/codec/http/HttpResponseStatus;
    new java/io/File
    goto +9                 // how far, counted in bytes from the jump itself

What follows ` // ` is a comment. Switches, `wide` and what needs constants of other kinds have no notation here.
"""

from __future__ import annotations

import json
import re
import struct

from serve.errors import ClassFileError
from serve.jvm.classfile import FIELD, INTERFACE_METHOD, METHOD, JavaClass
from serve.jvm.instructions import (
    CLASSES,
    FIELDS,
    JUMPS,
    LOCALS,
    METHODS,
    OPCODES,
    SWITCHES,
    WIDE_JUMPS,
)

_NOT_WRITTEN = SWITCHES | {"wide", "ldc", "ldc2_w", "iinc", "newarray", "multianewarray", "invokedynamic"}
_WITH_OPERAND = LOCALS | JUMPS | WIDE_JUMPS | FIELDS | METHODS | CLASSES | {"bipush", "sipush", "ldc_w", "invokeinterface"}
_COMMENT = re.compile(r"""^((?:"(?:\\.|[^"\\])*"|[^"])*?) // .*""")  # a text in quotes may have one too
_MEMBER = re.compile(r"(?P<owner>[^.:]+)\.(?P<name>[^.:]+):(?P<descriptor>\S+)")
_PARAMETER = re.compile(r"\[*(?:L[^;]+;|[BCDFIJSZ])")


def assemble(java: JavaClass, text: str) -> bytes:
    """The bytes of some instructions; the constants that they name are added to the class where it lacks them.

    Raises `ClassFileError` for what is not an instruction, or has an operand that it can't have.
    """
    lines = (_COMMENT.sub(r"\1", line).strip() for line in text.splitlines())
    return b"".join(_instruction(java, line) for line in lines if line)


def _instruction(java: JavaClass, line: str) -> bytes:
    name, _, operand = line.partition(" ")
    operand = operand.strip()
    if name not in OPCODES or name in _NOT_WRITTEN:
        raise ClassFileError(f"not an instruction that can be written here: {line}")
    if bool(operand) != (name in _WITH_OPERAND):
        raise ClassFileError(f"{name} takes {'an' if name in _WITH_OPERAND else 'no'} operand: {line}")
    try:
        return bytes([OPCODES[name]]) + _operand(java, name, operand)
    except (ValueError, struct.error):
        raise ClassFileError(f"{name} can't have this operand: {operand}") from None


def _operand(java: JavaClass, name: str, operand: str) -> bytes:
    if not operand:
        return b""
    if name in LOCALS:
        return struct.pack(">B", int(operand))
    if name == "bipush":
        return struct.pack(">b", int(operand))
    if name in JUMPS | {"sipush"}:
        return struct.pack(">h", int(operand))
    if name in WIDE_JUMPS:
        return struct.pack(">i", int(operand))
    if name == "ldc_w":
        return struct.pack(">H", java.string(_text(operand)))
    if name in CLASSES:
        return struct.pack(">H", java.class_(operand))
    member = _MEMBER.fullmatch(operand)
    if member is None:
        raise ValueError
    tag = FIELD if name in FIELDS else INTERFACE_METHOD if name == "invokeinterface" else METHOD
    number = struct.pack(">H", java.reference(tag, *member.groups()))
    return number + struct.pack(">BB", _slots(member["descriptor"]), 0) if name == "invokeinterface" else number


def _text(operand: str) -> str:
    value = json.loads(operand)
    if not isinstance(value, str):
        raise ValueError
    return value


def _slots(descriptor: str) -> int:
    """What the object and the arguments of a call take on the stack; a long and a double take two."""
    arguments = _PARAMETER.findall(descriptor[1 : descriptor.index(")")])
    return 1 + sum(2 if argument in ("J", "D") else 1 for argument in arguments)
