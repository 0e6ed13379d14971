"""Instructions by name, and their place in a method."""

from __future__ import annotations

import zipfile

import pytest

from serve.errors import ClassFileError
from serve.jvm.assembler import assemble
from serve.jvm.classfile import FIELD, INTERFACE_METHOD, METHOD, JavaClass
from serve.jvm.instructions import NAMES, OPCODES, instructions
from serve.jvm.java import frontend_jar
from serve.jvm.method_code import MethodCode


@pytest.fixture(scope="module")
def load_manager() -> bytes:
    """A small class of TorchServe's."""
    with zipfile.ZipFile(frontend_jar()) as jar:
        return jar.read("org/pytorch/serve/wlm/WorkLoadManager.class")


HAS_NO_WORKER = """
    aload_0
    getfield org/pytorch/serve/wlm/WorkLoadManager.workers:Ljava/util/concurrent/ConcurrentHashMap;
    aload_1
    invokevirtual java/util/concurrent/ConcurrentHashMap.get:(Ljava/lang/Object;)Ljava/lang/Object;
    checkcast java/util/List
    astore_2
    aload_2
    ifnonnull +5            // past the return
    iconst_1
    ireturn
    aload_2
    invokeinterface java/util/List.isEmpty:()Z
    ireturn
"""


def test_what_javap_shows_assembles_to_the_bytes_that_the_compiler_made(load_manager):
    java = JavaClass(load_manager)
    assert assemble(java, HAS_NO_WORKER) == MethodCode(java, java.method("hasNoWorker")).code
    assert java.write() == load_manager


def test_the_numbers_of_instructions_are_those_of_the_specification():
    known = {"nop": 0, "sipush": 0x11, "iload": 0x15, "aload_3": 0x2D, "istore_2": 0x3D, "pop": 0x57, "isub": 0x64}
    known |= {"lcmp": 0x94, "ifgt": 0x9D, "goto": 0xA7, "getstatic": 0xB2, "invokespecial": 0xB7, "new": 0xBB, "jsr_w": 0xC9}
    assert {name: OPCODES[name] for name in known} == known
    assert len(set(NAMES)) == len(NAMES) == 0xCA


def test_operands_are_numbers_jumps_texts_classes_and_members(load_manager):
    java = JavaClass(load_manager)
    for text, number in {
        'ldc_w "it\'s // there"': java.string("it's // there"),
        "new java/io/File": java.class_("java/io/File"),
        "getstatic a/B.c:I": java.reference(FIELD, "a/B", "c", "I"),
        "invokespecial a/B.<init>:()V": java.reference(METHOD, "a/B", "<init>", "()V"),
    }.items():
        assert assemble(java, text) == bytes([OPCODES[text.split()[0]]]) + number.to_bytes(2, "big")
    wide = java.reference(INTERFACE_METHOD, "a/B", "c", "(J[JLa/B;D[[I)V").to_bytes(2, "big")
    assert assemble(java, "invokeinterface a/B.c:(J[JLa/B;D[[I)V") == b"\xb9" + wide + b"\x08\x00"
    assert assemble(java, "sipush 503\nbipush -1\naload 12\ngoto -2\ngoto_w +70000") == bytes.fromhex(
        "1101f7 10ff 190c a7fffe c800011170"
    )


@pytest.mark.parametrize(
    "line",
    [
        "sipsh 1",
        "sipush",
        "sipush 40000",
        "sipush one",
        "bipush 200",
        "aload 256",
        "aload_1 1",
        "ldc_w Retry-After",
        "ldc_w 503",
        "getstatic io/grpc/Status.INTERNAL",
        "invokevirtual java/io/File:exists()Z",
        "tableswitch 1",
        "wide",
    ],
)
def test_what_is_not_an_instruction_is_refused_and_named(load_manager, line):
    with pytest.raises(ClassFileError) as refused:
        assemble(JavaClass(load_manager), line)
    assert line.split()[-1] in str(refused.value)


@pytest.mark.parametrize("code", ["ca", "11 01", "c4", "c4 84 0000", "aa 000000", "b9 0001"])
def test_code_that_is_cut_off_or_unknown_is_refused(code):
    with pytest.raises(ClassFileError):
        list(instructions(bytes.fromhex(code)))


def replaced(data: bytes, old: str, new: str) -> MethodCode:
    java = JavaClass(data)
    code = MethodCode(java, java.method("hasNoWorker"))
    code.replace(assemble(java, old), assemble(java, new), stack=1)
    assert MethodCode(JavaClass(java.write()), JavaClass(java.write()).method("hasNoWorker")).code == code.code
    return code


def test_instructions_are_replaced_where_they_occur_once_and_jumps_across_them_move(load_manager):
    java = JavaClass(load_manager)
    before = MethodCode(java, java.method("hasNoWorker")).code
    assert replaced(load_manager, "", "nop\nnop").code == b"\0\0" + before
    assert replaced(load_manager, "checkcast java/util/List\nastore_2", "nop").code == before[:8] + b"\0" + before[12:]
    assert replaced(load_manager, "iconst_1\nireturn", "iconst_0\nireturn").code == before.replace(b"\x04\xac", b"\x03\xac")
    longer = replaced(load_manager, "iconst_1\nireturn", "nop\nnop\niconst_1\nireturn")
    assert longer.code == before.replace(bytes.fromhex("c70005 04ac"), bytes.fromhex("c70007 0000 04ac"))
    far = "nop\n" * 40000 + "iconst_1\nireturn"
    for old, new, message in [
        ("iconst_1\nireturn", far, "ifnonnull at 13 would lead 40005 bytes"),
        ("aload_2", "nop", "occur 2 times"),
        ("dup", "nop", "occur 0 times"),
        ("iconst_1\nireturn\naload_2", "nop", "leads to 18, within what is replaced"),
    ]:
        with pytest.raises(ClassFileError, match=message):
            replaced(load_manager, old, new)


def test_bytes_that_look_like_the_instructions_within_another_one_are_not_taken_for_them(load_manager):
    java = JavaClass(load_manager)
    code = MethodCode(java, java.method("hasNoWorker"))
    code.replace(b"", assemble(java, "sipush 1025\npop"), stack=1)  # 0x0401, and 0x04 is iconst_1
    code.replace(assemble(java, "iconst_1\nireturn"), assemble(java, "iconst_0\nireturn"), stack=1)
    assert code.code.startswith(assemble(java, "sipush 1025"))


def test_code_that_grows_too_long_is_refused(load_manager):
    with pytest.raises(ClassFileError, match="65535 are allowed"):
        replaced(load_manager, "", "nop\n" * 65520)
