"""The artifacts to serve, checked against their manifests before anything starts."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from detector.errors import FileError, UsageError
from detector.manifest import Manifest
from serve.settings import Settings
from serve.torchserve.render import Layout


def install_archives(settings: Settings, layout: Layout) -> dict[str, str]:
    """Copy an archive of each artifact folder into the model store, verify it, and return the copies' names by version.

    The copy is served, so a change after the check has no effect. Every other file of the manifest that lies in the folder
    is checked too. Raises `FileError` when a manifest or an archive is missing, or a file's SHA-256 is not the manifest's,
    `UsageError` when what runs the archive is not installed or two folders hold the same version.
    """
    if settings.archive == "torchscript" and find_spec("torch") is None:
        raise UsageError("the torchscript archive needs torch, which is not installed here; serve --archive onnx")
    found: dict[str, tuple[Path, Manifest]] = {}
    for folder in settings.artifacts:
        manifest = _manifest(folder)
        version = manifest.model.version
        if version in found:
            raise UsageError(
                f"{found[version][0]} and {folder} both hold version {version}; `unmask export --version` sets it, "
                "so export one of them again with another"
            )
        found[version] = folder, manifest
    shutil.rmtree(layout.store, ignore_errors=True)
    layout.store.mkdir(parents=True)
    archives = {version: f"detector-{settings.archive}-{i}.mar" for i, version in enumerate(found, 1)}
    for version, (folder, manifest) in found.items():
        _verified_copy(folder, settings, manifest, layout.store).rename(layout.store / archives[version])
    return archives


def served_manifests(settings: Settings) -> dict[str, Manifest]:
    """The manifest of each artifact folder, by version, the default one first. Raises `FileError`."""
    manifests = map(_manifest, settings.artifacts)
    return {manifest.model.version: manifest for manifest in manifests}


def _manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder; `unmask export` writes one, --artifacts names it")
    return Manifest.load(folder / "manifest.json")


def _verified_copy(folder: Path, settings: Settings, manifest: Manifest, store: Path) -> Path:
    name = settings.archive_name
    if not (folder / name).is_file():
        precision = f" --precision {settings.archive}" if settings.archive in ("int8", "fp16") else ""
        raise FileError(f"{folder / name}: no such file; `unmask export{precision}` writes it")
    shutil.copyfile(folder / name, store / name)
    manifest.verify(store, only=(name,))
    others = tuple(other for other in sorted(manifest.files) if other != name and (folder / other).exists())
    try:
        manifest.verify(folder, only=others)
    except FileError as error:
        raise FileError(f"{folder}: {error.message}") from None
    return store / name
