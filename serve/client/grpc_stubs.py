"""TorchServe's gRPC stubs, generated from the protocol files in its own jar and kept in a cache folder."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.resources
import os
import sys
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from detector.errors import FileError
from serve.folders import user_folder
from serve.jvm.java import frontend_jar

_SOURCES = ("inference.proto", "management.proto", "open_inference_grpc.proto")
_IMPORTED = ("google/rpc/status.proto",)


def cache_dir() -> Path:
    """`$UNMASK_STUBS`, or `$XDG_CACHE_HOME/unmask/stubs`, or `~/.cache/unmask/stubs`; see `user_folder`."""
    if chosen := os.environ.get("UNMASK_STUBS"):
        return Path(chosen)
    return user_folder("XDG_CACHE_HOME", ".cache") / "stubs"


def generate() -> Path:
    """Write the stubs where they are not there yet, and return their folder, named after the protocol files' content.

    Raises `FileError` when TorchServe is not installed, its jar holds no protocol files, or the folder can't be written.
    """
    try:
        with zipfile.ZipFile(frontend_jar()) as jar:
            sources = {name: jar.read("proto/" + name) for name in _SOURCES}
            sources |= {name: jar.read(name) for name in _IMPORTED}
    except (KeyError, zipfile.BadZipFile):
        raise FileError("model-server.jar: holds no gRPC protocol files; torchserve 0.12.0 does") from None
    digest = hashlib.sha256(version("grpcio-tools").encode())
    for name, content in sorted(sources.items()):
        digest.update(name.encode() + content)
    target = cache_dir() / digest.hexdigest()[:16]
    if not target.is_dir():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                _compile(sources, Path(scratch)).rename(target)
        except OSError as error:
            if not target.is_dir():  # else another process was a moment quicker
                raise FileError(
                    f"{target}: the gRPC stubs can't be written ({error.strerror}); UNMASK_STUBS names another folder"
                ) from None
    return target


@functools.cache  # to read the list of the jar's 25,000 files takes 0.2 s
def load(name: str = "inference") -> tuple[ModuleType, ModuleType]:
    """Messages and client of a protocol, generated first where needed: `inference`, `management` or `open_inference_grpc`."""
    folder = str(generate())
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"{name}_pb2"), importlib.import_module(f"{name}_pb2_grpc")


def _compile(sources: dict[str, bytes], scratch: Path) -> Path:
    """Run protoc; returns the folder of the Python modules."""
    from grpc_tools import protoc

    protos, out = scratch / "protos", scratch / "out"
    out.mkdir()
    for name, content in sources.items():
        (protos / name).parent.mkdir(parents=True, exist_ok=True)
        (protos / name).write_bytes(content)
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    arguments = ["protoc", f"-I{protos}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main([*arguments, *sources]) != 0:
        raise FileError("protoc can't compile TorchServe's protocol files; it wrote the reason above")
    return out
