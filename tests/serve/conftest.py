"""A second server, for the other archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.running import RunningServer


@pytest.fixture(scope="session")
def torchscript_server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real TorchServe with the TorchScript archive."""
    flags = ("--archive", "torchscript", "--workers", "1", "--threads", "1")
    running = RunningServer(artifacts, tmp_path_factory.mktemp("torchscript"), *flags)
    try:
        yield running.await_ready()
    finally:
        running.stop()
