"""The JVM's instructions: their names, numbers and operands (JVM specification, chapter 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from serve.errors import ClassFileError

# In the order of their numbers, from 0 on.
_IN_ORDER = """
nop aconst_null iconst_m1 iconst_0 iconst_1 iconst_2 iconst_3 iconst_4 iconst_5 lconst_0 lconst_1 fconst_0 fconst_1 fconst_2
dconst_0 dconst_1 bipush sipush ldc ldc_w ldc2_w iload lload fload dload aload
iload_0 iload_1 iload_2 iload_3 lload_0 lload_1 lload_2 lload_3 fload_0 fload_1 fload_2 fload_3
dload_0 dload_1 dload_2 dload_3 aload_0 aload_1 aload_2 aload_3
iaload laload faload daload aaload baload caload saload istore lstore fstore dstore astore
istore_0 istore_1 istore_2 istore_3 lstore_0 lstore_1 lstore_2 lstore_3 fstore_0 fstore_1 fstore_2 fstore_3
dstore_0 dstore_1 dstore_2 dstore_3 astore_0 astore_1 astore_2 astore_3
iastore lastore fastore dastore aastore bastore castore sastore pop pop2 dup dup_x1 dup_x2 dup2 dup2_x1 dup2_x2 swap
iadd ladd fadd dadd isub lsub fsub dsub imul lmul fmul dmul idiv ldiv fdiv ddiv irem lrem frem drem ineg lneg fneg dneg
ishl lshl ishr lshr iushr lushr iand land ior lor ixor lxor iinc
i2l i2f i2d l2i l2f l2d f2i f2l f2d d2i d2l d2f i2b i2c i2s lcmp fcmpl fcmpg dcmpl dcmpg
ifeq ifne iflt ifge ifgt ifle if_icmpeq if_icmpne if_icmplt if_icmpge if_icmpgt if_icmple if_acmpeq if_acmpne goto jsr ret
tableswitch lookupswitch ireturn lreturn freturn dreturn areturn return
getstatic putstatic getfield putfield invokevirtual invokespecial invokestatic invokeinterface invokedynamic
new newarray anewarray arraylength athrow checkcast instanceof monitorenter monitorexit
wide multianewarray ifnull ifnonnull goto_w jsr_w
"""
NAMES = _IN_ORDER.split()
OPCODES = {name: number for number, name in enumerate(NAMES)}

LOCALS = {f"{kind}{what}" for kind in "ilfda" for what in ("load", "store")} | {"ret"}
JUMPS = {name for name in NAMES if name.startswith("if") or name in ("goto", "jsr")}
WIDE_JUMPS = {"goto_w", "jsr_w"}
FIELDS = {"getstatic", "putstatic", "getfield", "putfield"}
METHODS = {"invokevirtual", "invokespecial", "invokestatic"}
CLASSES = {"new", "anewarray", "checkcast", "instanceof"}
SWITCHES = {"tableswitch", "lookupswitch"}

# Bytes of the operands; those of switches and of `wide` depend on what they hold.
_OPERANDS = dict.fromkeys(LOCALS | {"bipush", "ldc", "newarray"}, 1)
_OPERANDS |= dict.fromkeys(JUMPS | FIELDS | METHODS | CLASSES | {"sipush", "ldc_w", "ldc2_w", "iinc"}, 2)
_OPERANDS |= {"multianewarray": 3} | dict.fromkeys(WIDE_JUMPS | {"invokeinterface", "invokedynamic"}, 4)


@dataclass(frozen=True)
class Instruction:
    """One instruction of a method. at, end: where it lies in the code. targets: where it may jump to.

    offsets: where in the code each target's distance from `at` stands; it takes two bytes in `JUMPS`, else four.
    """

    name: str
    at: int
    end: int
    targets: tuple[int, ...] = ()
    offsets: tuple[int, ...] = ()


def instructions(code: bytes) -> Iterator[Instruction]:
    """The instructions of a method's code, in order. Raises `ClassFileError` when it is not made of whole instructions."""
    at = 0
    while at < len(code):
        if code[at] >= len(NAMES):
            raise ClassFileError(f"no instruction has the number {code[at]}, which stands at {at}")
        name = NAMES[code[at]]
        offsets: tuple[int, ...] = ()
        if name in SWITCHES:
            end, offsets = _switch(name, code, at)
        elif name == "wide":
            end = at + (6 if code[at + 1 : at + 2] == bytes([OPCODES["iinc"]]) else 4)
        else:
            size = _OPERANDS.get(name, 0)
            end = at + 1 + size
            if name in JUMPS | WIDE_JUMPS:
                offsets = (at + 1,)
        if end > len(code):
            raise ClassFileError(f"the code ends within {name}, which stands at {at}")
        targets = tuple(at + _number(code, offset, 2 if name in JUMPS else 4) for offset in offsets)
        yield Instruction(name, at, end, targets, offsets)
        at = end


def _switch(name: str, code: bytes, at: int) -> tuple[int, tuple[int, ...]]:
    """Where a switch ends, and where the distances of its targets stand; its numbers begin at a multiple of four."""
    start = at + 4 - at % 4
    first, second = _number(code, start + 4, 4), _number(code, start + 8, 4)
    if name == "tableswitch":
        offsets = [start, *range(start + 12, start + 12 + 4 * (second - first + 1), 4)]
        end = start + 12 + 4 * (second - first + 1)
    else:
        offsets = [start, *range(start + 12, start + 8 + 8 * first, 8)]
        end = start + 8 + 8 * first
    return end, tuple(offsets)


def _number(code: bytes, at: int, size: int) -> int:
    if at + size > len(code):
        raise ClassFileError(f"the code ends early: {size} bytes wanted at {at}")
    return int.from_bytes(code[at : at + size], "big", signed=True)
