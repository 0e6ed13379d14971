"""Servers of one worker, and a second one for the other archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from detector import Band, Manifest, sha256
from tests.conftest import made_once
from tests.serve.running import RunningServer

OLD, NEW = "1.0", "2.0-candidate"
WARNING = {"code": "auc_at_chance", "message": "on these photos it is no better than a coin"}


@pytest.fixture(scope="session")
def newer(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as another version, with another threshold to tell its verdicts by, and with a band."""
    from export.archive import write_archive

    def make(folder: Path) -> None:
        folder.mkdir()
        before = Manifest.load(artifacts / "manifest.json")
        version = replace(before.model, version=NEW)
        manifest = replace(before, model=version, threshold=0.25, uncertain=Band(0.25, 0.75), warnings=[WARNING])
        archive = folder / "detector-onnx.mar"
        write_archive(archive, artifacts / "model.onnx", manifest)
        replace(manifest, files={archive.name: sha256(archive)}).save(folder / "manifest.json")

    return made_once(tmp_path_factory, "newer", make)


@pytest.fixture
def start(artifacts: Path, tmp_path: Path) -> Iterator[Callable[..., RunningServer]]:
    """Start servers of one worker that are gone when the test is over."""
    servers: list[RunningServer] = []

    def begin(folder: Path = artifacts, *flags: str) -> RunningServer:
        workers = () if "--workers" in flags else ("--workers", "1")
        servers.append(RunningServer(folder, tmp_path / f"state{len(servers)}", *workers, *flags))
        return servers[-1]

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def torchscript_server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real TorchServe with the TorchScript archive."""
    flags = ("--archive", "torchscript", "--workers", "1", "--threads", "1")
    running = RunningServer(artifacts, tmp_path_factory.mktemp("torchscript"), *flags)
    try:
        yield running.await_ready()
    finally:
        running.stop()
