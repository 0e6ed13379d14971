"""What export's tests share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.conftest import made_once, write_run


@pytest.fixture(scope="session")
def squeezenet_run(tmp_path_factory: pytest.TempPathFactory, photos: list[bytes]) -> Path:
    """A run of another network, with few layers: the ONNX exporter's time goes by those."""
    write = partial(write_run, model="torchvision/squeezenet1_1", photos=photos, size=64)
    return made_once(tmp_path_factory, "squeezenet", write)
