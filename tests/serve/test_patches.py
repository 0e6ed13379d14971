"""The changed classes of TorchServe: the files that were tested, such as a JVM loads, and all of them documented."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from detector import FileError
from serve.errors import ClassFileError
from serve.jvm import patches
from serve.jvm.assembler import assemble
from serve.jvm.changes import Method, Patch, Replace, Reword
from serve.jvm.classfile import JavaClass
from serve.jvm.instructions import SWITCHES, instructions
from serve.jvm.java import find_java, frontend_jar
from serve.jvm.method_code import MethodCode
from serve.jvm.patches import PATCHES, write_patched_classes
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    """TorchServe's own classes by name, and of those of Netty, protobuf and so on what is changed."""
    with zipfile.ZipFile(frontend_jar()) as jar:
        names = [name.removesuffix(".class") for name in jar.namelist() if name.startswith("org/pytorch/serve/")]
        names += PATCHES.keys() - set(names)
        return {name: jar.read(f"{name}.class") for name in names if not name.endswith("/")}


def verified(names: list[str], directory: Path, work: Path) -> tuple[set[str], str]:
    """Have a JVM load classes, those under `directory` before TorchServe's; which of them it verified, and all it printed.

    The JUnit in TorchServe's jar is a program that loads the classes it is given, and finds no tests in ours.
    """
    called = [name.replace("/", ".") for name in names]
    command = [find_java(), "-Xlog:class+init=info,class+load=info", "-cp", f"{directory}{os.pathsep}{frontend_jar()}"]
    done = subprocess.run(
        [*map(str, command), "org.junit.runner.JUnitCore", *called],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    ended = set(re.findall(r"End class verification for: (\S+)", done.stdout))
    ended -= set(re.findall(r"Verification for (\S+) failed", done.stdout))
    ours = set(re.findall(rf"(\S+) source: file:{re.escape(str(directory))}/", done.stdout))
    return {name for name, java in zip(names, called, strict=True) if java in ended & ours}, done.stdout + done.stderr


def test_each_class_is_the_one_that_was_tested_and_there_is_no_other(tmp_path, originals):
    (tmp_path / "Older.class").write_bytes(b"of another release")
    write_patched_classes(frontend_jar(), tmp_path)
    written = {str(path.relative_to(tmp_path).with_suffix("")): path for path in tmp_path.rglob("*.class")}
    assert written.keys() == PATCHES.keys()
    for name, patch in PATCHES.items():
        assert hashlib.sha256(originals[name]).hexdigest() == patch.original
        assert hashlib.sha256(written[name].read_bytes()).hexdigest() == patch.patched
        assert patch.patched != patch.original


def test_the_jvm_verifies_and_loads_each(tmp_path):
    classes = tmp_path / "classes"
    write_patched_classes(frontend_jar(), classes)
    loaded, output = verified(list(PATCHES), classes, tmp_path)
    assert loaded == PATCHES.keys(), output[-3000:]


def write(java: JavaClass, name: str, directory: Path) -> None:
    target = directory / f"{name}.class"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(java.write())


def test_the_jvm_refuses_a_class_whose_stack_is_too_small(tmp_path, originals):
    name = "org/pytorch/serve/util/NettyUtils"
    java = JavaClass(originals[name])
    Replace("sendHttpResponse", "", "iconst_0\n" * 20 + "pop\n" * 20, stack=1).apply(java)
    write(java, name, tmp_path)
    loaded, output = verified([name], tmp_path, tmp_path)
    assert not loaded
    assert "VerifyError: Operand stack overflow" in output


def test_the_jvm_verifies_methods_of_all_kinds_that_were_moved(tmp_path, originals):
    called, moved = [], 0
    for name, data in originals.items():
        java = JavaClass(data)
        for method in java.methods:
            if method.access & 0x500:  # abstract or native
                continue
            code = MethodCode(java, method)
            switches = any(each.name in SWITCHES for each in instructions(code.code))
            code.replace(b"", assemble(java, "nop\n" * (4 if switches else 3)), stack=0)
            moved += 1
        write(java, name, tmp_path / "classes")
        if "<clinit>" not in {java.text(method.name) for method in java.methods}:  # the others want a server around them
            called.append(name)
    assert moved > 1000
    loaded, output = verified(called, tmp_path / "classes", tmp_path)
    assert len(called) > 100
    assert set(called) - loaded == set(), output[-3000:]


def test_another_torchserves_jar_is_not_patched(tmp_path):
    jar = tmp_path / "model-server.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr(f"{next(iter(PATCHES))}.class", b"\xca\xfe\xba\xbe another")
    with pytest.raises(FileError, match=r"0\.12\.0"):
        write_patched_classes(jar, tmp_path / "classes")


def test_a_change_that_makes_another_class_than_the_tested_one_is_refused(monkeypatch, originals):
    name = "org/pytorch/serve/util/ApiUtils"
    other = Patch(PATCHES[name].original, PATCHES[name].patched, (Reword("Code", "code"),))
    monkeypatch.setitem(PATCHES, name, other)
    with pytest.raises(ClassFileError, match=r"ApiUtils: .*tested"):
        patches.patched(name, originals[name])


def test_the_page_names_each_class_and_no_other():
    page = (ROOT / "docs" / "explanation" / "torchserve.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:org|io)\.\S+)` \| (`.+?) \|", page, re.MULTILINE)
    documented = {(name, method) for name, methods in rows for method in re.findall(r"`([\w<>$]+)`", methods)}
    changed = {
        (name.replace("/", "."), change.method.partition(":")[0])
        for name, patch in PATCHES.items()
        for change in patch.changes
        if isinstance(change, Replace | Method)
    }
    assert {name for name, _ in documented} == {name.replace("/", ".") for name in PATCHES}
    assert changed <= documented
