"""Loaded engines, one of each kind, as a worker would have them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from handlers.engine import Engine, load_engine


@pytest.fixture(scope="session")
def archives(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both archives, unpacked as TorchServe unpacks them."""
    folders = {}
    for kind in ("onnx", "torchscript"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        with zipfile.ZipFile(artifacts / f"detector-{kind}.mar") as archive:
            archive.extractall(folders[kind])
    return folders


@pytest.fixture(scope="session")
def onnx_engine(archives: dict[str, Path]) -> Engine:
    """The ONNX archive's engine."""
    return load_engine(archives["onnx"], threads=1)


@pytest.fixture(scope="session")
def torchscript_engine(archives: dict[str, Path]) -> Engine:
    """The TorchScript archive's engine."""
    return load_engine(archives["torchscript"], threads=1)
