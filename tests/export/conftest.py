"""What export's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import write_run


@pytest.fixture(scope="session")
def squeezenet_run(tmp_path_factory: pytest.TempPathFactory, photos: list[bytes]) -> Path:
    """A run of another network, with few layers: the ONNX exporter's time goes by those."""
    folder = tmp_path_factory.mktemp("squeezenet")
    write_run(folder, "torchvision/squeezenet1_1", photos, size=64)
    return folder
