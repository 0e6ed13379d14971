"""The TorchServe archive: a model, its manifest and the code that serves it, in one `.mar` that runs by itself."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from detector.errors import FileError
from detector.manifest import Manifest, sha256
from export.errors import ArchiveError

PACKAGES = ("detector", "handlers")
ENTRY = "detector_handler.py"
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "tests", ".*")
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, model: Path, manifest: Manifest) -> None:
    """Write `path` holding `model`, `manifest` with that model's hash alone, both packages and the entry point.

    The same contents give the same bytes. Raises `FileError` when the handler is missing, `ArchiveError` when
    torch-model-archiver refuses.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".archive-") as scratch:
        work = Path(scratch)
        extra = work / "extra"
        for package in PACKAGES:
            shutil.copytree(package_folder(package), extra / package, ignore=_LEFT_OUT)
        entry = extra / "handlers" / ENTRY
        if not entry.is_file():
            raise FileError(f"handlers/{ENTRY} is missing; the archive would have no entry point")
        replace(manifest, files={model.name: sha256(model)}).save(extra / "manifest.json")
        contents = _archive_tree(work, model, entry, extra, manifest.model.name, manifest.model.version)
        _zip(contents, path)


def package_folder(package: str) -> Path:
    """Where a package's source lies; found without importing it, since handlers run only inside a server."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileError(f"package {package} is not installed; it goes into every archive")
    return Path(next(iter(found.submodule_search_locations)))


def extract_archive(path: Path, directory: Path) -> Manifest:
    """Unpack an archive into `directory`, as TorchServe does, and return the manifest inside.

    Raises `FileError` when it is no archive, holds a name that leaves the directory, or lacks a part.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if Path(name).is_absolute() or ".." in Path(name).parts:
                    raise FileError(f"{path.name}: holds {name!r}, which would leave its folder")
            archive.extractall(directory)
    except (OSError, zipfile.BadZipFile):
        raise FileError(f"{path.name}: is missing or not a model archive") from None
    parts = ["MAR-INF/MANIFEST.json", "manifest.json", ENTRY, *(f"{p}/__init__.py" for p in PACKAGES), f"handlers/{ENTRY}"]
    for part in parts:
        if not (directory / part).is_file():
            raise FileError(f"{path.name}: {part} is missing inside")
    return Manifest.load(directory / "manifest.json")


def _archive_tree(work: Path, model: Path, entry: Path, extra: Path, name: str, version: str) -> Path:
    """What torch-model-archiver would zip, with TorchServe's own manifest, as a folder."""
    out, scratch = work / "out", work / "scratch"
    out.mkdir()
    scratch.mkdir()
    options = {
        "model-name": name,
        "version": version,
        "serialized-file": model,
        "handler": entry,
        "extra-files": extra,
        "export-path": out,
        "archive-format": "no-archive",
    }
    command = [sys.executable, "-m", "model_archiver.model_packaging"]
    command += [f"--{key}={value}" for key, value in options.items()]
    # It assembles in <temp>/<model name> and deletes what is there: two exports at once need two temp folders.
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(scratch)}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ArchiveError(f"torch-model-archiver failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    tree = out / name
    inf = tree / "MAR-INF" / "MANIFEST.json"
    values = json.loads(inf.read_text(encoding="utf-8"))
    del values["createdOn"]  # optional to TorchServe, and the one thing that differs between two equal exports
    inf.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return tree


def _zip(tree: Path, path: Path) -> None:
    """Zip in name order with fixed times. Stored: weights hardly shrink, and workers start sooner."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(p for p in tree.rglob("*") if p.is_file()):
            info = zipfile.ZipInfo(file.relative_to(tree).as_posix(), date_time=_EPOCH)
            info.external_attr = 0o644 << 16
            archive.writestr(info, file.read_bytes())
