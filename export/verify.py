"""Prove artifacts again: hashes of every file and of what is in the archives, and parity of what the archives hold."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detector.errors import FileError, UnmaskError
from detector.manifest import Manifest
from export import pictures
from export.archive import extract_archive
from export.artifacts import ARCHIVES, ONNX, REDUCED, TORCHSCRIPT, files_of, models_of
from export.checks import check_verify
from export.parity import Parity, measure_parity
from export.reduced.search import finite, logits, spread
from export.runners import onnx_runner, torchscript_runner

# What a verdict depends on besides the weights.
_DECIDES = ("model", "image_spec", "labels", "threshold", "uncertain", "calibration")


def verify_artifacts(artifacts: Path, photos: Path | None = None) -> dict[str, Any]:
    """Check a folder that `export_run` wrote, without the run it came from.

    Returns {"ok", "checks": {name: "ok" or what is wrong}, "parity": measured differences}. Parity is that of ONNX against
    TorchScript, both as the archives hold them, on `photos` or on drawn pictures; it runs only when every hash holds. Models
    of fewer bits are held to the manifest's curve; "precision" in "parity" says how far their logits are from float32's on
    those pictures, in standard deviations.
    Raises `FileError` when there is no such folder, or too few photos.
    """
    check_verify(artifacts, photos=photos)
    checks: dict[str, str] = {}
    report: dict[str, Any] = {}

    def check(name: str, act: Callable[[], object]) -> None:
        if checks.get(name, "ok") == "ok":
            try:
                act()
                checks[name] = "ok"
            except UnmaskError as error:
                checks[name] = error.message

    check("manifest.json", lambda: _load(artifacts))
    if checks["manifest.json"] == "ok":
        manifest = _load(artifacts)
        for name in sorted(manifest.files):
            check(name, lambda name=name: manifest.verify(artifacts, only=(name,)))  # type: ignore[misc]
        with tempfile.TemporaryDirectory(prefix="unmask-verify-") as scratch:
            folder = Path(scratch)
            for model in models_of(manifest):
                archive = ARCHIVES[model]
                check(archive, lambda m=model, a=archive: _check_archive(artifacts / a, m, manifest, folder / m))  # type: ignore[misc]
            if all(v == "ok" for v in checks.values()):
                found, report = _parity(folder, manifest, photos)
                check("parity", found.require)
    return {"ok": all(v == "ok" for v in checks.values()), "checks": checks, "parity": report}


def _load(artifacts: Path) -> Manifest:
    manifest = Manifest.load(artifacts / "manifest.json")
    if missing := sorted(set(files_of(manifest)) - set(manifest.files)):
        raise FileError(f"manifest.json: does not list {', '.join(missing)}")
    return manifest


def _check_archive(path: Path, model: str, outer: Manifest, folder: Path) -> None:
    """Unpack into `folder`; hold what is inside against the manifest inside, and that against the one outside."""
    inner = extract_archive(path, folder)
    try:
        inner.verify(folder, only=(model,))
    except FileError as error:
        raise FileError(f"{path.name}: inside, {error.message}") from None
    for key in _DECIDES:
        if inner.to_dict().get(key) != outer.to_dict().get(key):
            raise FileError(f"{path.name}: its own manifest has another {key} than manifest.json")
    if model in outer.files and inner.files[model] != outer.files[model]:
        raise FileError(f"{path.name}: holds another {model} than the one beside it")


def _parity(folder: Path, manifest: Manifest, photos: Path | None) -> tuple[Parity, dict[str, Any]]:
    """Parity of ONNX and TorchScript, and its report with what models of fewer bits give."""
    spec, onnx = manifest.image_spec, folder / ONNX / ONNX
    images = pictures.photos_in(photos, spec) if photos is not None else pictures.drawn(spec)
    runners = [onnx_runner(onnx), torchscript_runner(folder / TORCHSCRIPT / TORCHSCRIPT)]
    reduced = {precision: folder / name / name for precision, name in REDUCED.items() if precision in manifest.precision}
    found = measure_parity(runners, images, manifest.curve, [onnx, *reduced.values()])
    expected = logits(onnx, images)
    errors = {p: finite(spread(logits(path, images), expected, float(expected.std()))) for p, path in reduced.items()}
    return found, found.to_dict() | {"precision": errors}
