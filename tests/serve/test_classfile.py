"""Java classes read, changed and written: those of the installed TorchServe, and what is not a class."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator

import pytest

from serve.errors import ClassFileError
from serve.jvm.classfile import DOUBLE, FIELD, LONG, METHOD, Attribute, JavaClass, Member, Reader
from serve.jvm.instructions import instructions
from serve.jvm.java import frontend_jar
from serve.jvm.method_code import MethodCode
from serve.jvm.patches import PATCHES
from serve.jvm.stack_map import read_frames, write_frames

MODEL = "org/pytorch/serve/wlm/Model.class"
EVERY = 40  # of the 24,000 classes that the jar bundles, besides TorchServe's own


@pytest.fixture(scope="module")
def classes() -> dict[str, bytes]:
    """All of TorchServe's own classes, and some of each library in its jar."""
    with zipfile.ZipFile(frontend_jar()) as jar:
        names = sorted(name for name in jar.namelist() if name.endswith(".class"))
        chosen = {name for name in names if name.startswith("org/pytorch/")} | set(names[::EVERY])
        chosen |= {f"{name}.class" for name in PATCHES}
        return {name: jar.read(name) for name in sorted(chosen)}


def code_of(java: JavaClass) -> Iterator[tuple[Member, Attribute]]:
    for method in java.methods:
        yield from ((method, each) for each in method.attributes if java.text(each.name) == "Code")


def test_what_is_read_is_written_back_byte_for_byte(classes):
    assert {f"{name}.class" for name in PATCHES} < classes.keys()
    assert len(classes) > 700
    for name, data in classes.items():
        assert JavaClass(data).write() == data, name


def test_code_is_made_of_whole_instructions_whose_jumps_lead_to_others_and_is_written_back(classes):
    switches = frames = 0
    for data in classes.values():
        java = JavaClass(data)
        for method, attribute in code_of(java):
            code = MethodCode(java, method)
            assert code.write() == attribute.content
            found = list(instructions(code.code))
            assert [each.at for each in found] == [0, *(each.end for each in found[:-1])]
            assert {target for each in found for target in each.targets} <= {each.at for each in found}
            switches += sum("switch" in each.name for each in found)
            for inner in code_attributes(attribute):
                if java.text(inner.name) == "StackMapTable":
                    frames += 1
                    assert write_frames(read_frames(inner.content)) == inner.content
    assert switches > 20
    assert frames > 1000


def code_attributes(attribute: Attribute) -> list[Attribute]:
    """What a method's code has beside the instructions, read without `MethodCode`."""
    reader = Reader(attribute.content)
    reader.take(4)
    reader.take(reader.number(4))
    reader.take(8 * reader.number(2))
    return [Attribute(reader.number(2), reader.take(reader.number(4))) for _ in range(reader.number(2))]


def test_constants_are_found_where_they_are_and_added_where_they_are_not(classes):
    java = JavaClass(classes[MODEL])
    java.utf8("pollBatch")
    java.class_("org/pytorch/serve/wlm/Model")
    java.reference(FIELD, "org/pytorch/serve/wlm/Model", "maxBatchDelay", "I")
    java.reference(METHOD, "java/lang/System", "currentTimeMillis", "()J")
    assert java.write() == classes[MODEL]

    number = java.string("one that is not there")
    assert java.string("one that is not there") == number
    again = JavaClass(java.write())
    assert again.write() == java.write()
    assert again.text(number - 1) == "one that is not there"
    assert len(again.write()) == len(classes[MODEL]) + 3 + len("one that is not there") + 3


def minimal(*constants: bytes) -> bytes:
    """A class without members that is called A; its own constants are the numbers 1 to 4, those given come behind."""
    own = [b"\x01\0\x01A", b"\x07\0\x01", b"\x01\0\x10java/lang/Object", b"\x07\0\x03"]
    count = 1 + len(own) + sum(2 if constant[0] in (LONG, DOUBLE) else 1 for constant in constants)
    pool = struct.pack(">H", count) + b"".join([*own, *constants])
    return b"\xca\xfe\xba\xbe\0\0\x004" + pool + struct.pack(">HHHHHHH", 0x21, 2, 4, 0, 0, 0, 0)


@pytest.mark.parametrize("tag", [LONG, DOUBLE])
def test_a_wide_constant_takes_two_numbers(tag):
    java = JavaClass(minimal(bytes([tag]) + bytes(8), b"\x01\0\x01x"))
    assert java.text(7) == "x"
    assert java.utf8("x") == 7
    assert java.utf8("y") == 8
    with pytest.raises(ClassFileError, match="constant 6 "):
        java.text(6)
    assert JavaClass(java.write()).text(8) == "y"


def test_the_numbers_of_a_class_with_wide_constants_are_those_that_its_members_use(classes):
    java = JavaClass(classes[MODEL])
    assert {"pollBatch", "addJob", "<init>"} <= {java.text(method.name) for method in java.methods}
    assert java.text(java.method("pollBatch").descriptor) == "(Ljava/lang/String;JLjava/util/Map;)V"


def test_texts_are_in_modified_utf_8(classes):
    value, content = "a\0é€𝕏", b"a" + bytes.fromhex("c080 c3a9 e282ac eda0b5 edb58f")
    java = JavaClass(minimal())
    number = java.utf8(value)
    assert java.write() == minimal(b"\x01" + struct.pack(">H", len(content)) + content)
    assert JavaClass(java.write()).text(number) == value
    lone = java.utf8("\ud835")  # legal in Java
    assert JavaClass(java.write()).text(lone) == "\ud835"


def test_a_text_is_replaced_wherever_it_is_used(classes):
    java = JavaClass(classes[MODEL])
    java.replace_text("pollBatch", "pollSome")
    again = JavaClass(java.write())
    assert again.method("pollSome").access == JavaClass(classes[MODEL]).method("pollBatch").access
    with pytest.raises(ClassFileError, match="no constant 'pollBatch'"):
        again.replace_text("pollBatch", "x")


def test_a_class_that_ends_early_is_refused_wherever_it_ends():
    data = minimal(bytes([LONG]) + bytes(8))
    for size in range(len(data)):
        with pytest.raises(ClassFileError):
            JavaClass(data[:size])
    JavaClass(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends early"),
        (b"PK\3\4 a jar, not a class", "does not begin with CAFEBABE"),
        (minimal() + b"x", "1 bytes follow the end"),
        (minimal(b"\x02\0\0"), "constant 5 is of an unknown kind: 2"),
        (minimal(b"\x05" + bytes(8)).replace(struct.pack(">H", 7), struct.pack(">H", 6), 1), "takes one number more"),
    ],
)
def test_what_is_not_a_class_is_refused_with_the_reason(data, message):
    with pytest.raises(ClassFileError, match=message):
        JavaClass(data)


def test_what_a_class_does_not_hold_is_said():
    java = JavaClass(minimal(b"\x01\0\x01\xff"))
    for number in (0, 2, 99):
        with pytest.raises(ClassFileError, match=f"constant {number} is not a text"):
            java.text(number)
    with pytest.raises(ClassFileError, match="modified UTF-8"):
        java.text(5)
    with pytest.raises(ClassFileError, match="0 methods are called run"):
        java.method("run")


def test_a_method_that_is_not_alone_or_has_no_code_is_refused(classes):
    java = JavaClass(classes[MODEL])
    with pytest.raises(ClassFileError, match="2 methods are called pollInferJob"):
        java.method("pollInferJob")
    interface = JavaClass(classes["org/pytorch/serve/servingsdk/Context.class"])
    abstract = next(method for method in interface.methods if method.access & 0x400)
    with pytest.raises(ClassFileError, match="has no code"):
        MethodCode(interface, abstract)


def test_more_than_a_class_can_hold_is_refused():
    java = JavaClass(minimal())
    with pytest.raises(ClassFileError, match="65536 bytes is too long"):
        java.utf8("x" * 65536)
    full = JavaClass(minimal(*(b"\x03" + struct.pack(">I", number) for number in range(65530))))
    with pytest.raises(ClassFileError, match="at most 65534 constants"):
        full.utf8("one more")
