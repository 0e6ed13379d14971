"""The archive to serve, held against the manifest before anything is started."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

from detector.errors import FileProblem, UsageError
from detector.manifest import Manifest
from serve.render import Layout
from serve.settings import Settings


def install_archive(settings: Settings, layout: Layout) -> Manifest:
    """Copy the archive into the model store, verify the copy, and return the manifest.

    The copy is what is served, so that a file changed after the check can't be. Raises `FileProblem` when the manifest or the
    archive is missing, or the archive's SHA-256 is not the manifest's, `UsageError` when what runs it is not installed.
    """
    if settings.archive == "torchscript" and find_spec("torch") is None:
        raise UsageError("the torchscript archive needs torch, which is not installed here; serve --archive onnx")
    if not settings.artifacts.is_dir():
        raise FileProblem(f"{settings.artifacts}: no such folder; `python -m export` writes one, --artifacts names it")
    manifest = Manifest.load(settings.artifacts / "manifest.json")
    name = settings.archive_name
    if not (settings.artifacts / name).is_file():
        raise FileProblem(f"{settings.artifacts / name}: no such file; `python -m export` writes it")
    shutil.rmtree(layout.store, ignore_errors=True)
    layout.store.mkdir(parents=True)
    shutil.copyfile(settings.artifacts / name, layout.store / name)
    manifest.verify(layout.store, only=(name,))
    return manifest
