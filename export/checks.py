"""Arguments and files that can be refused at once: what the commands check before they import torch."""

from __future__ import annotations

import re
from pathlib import Path

from detector.errors import FileError, UsageError
from detector.files import read_json, shown
from export.errors import AucTooLow

OPSETS = range(18, 22)  # what the exporter writes without converting, and TensorRT 10 and ONNX Runtime read
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_export(
    run: Path,
    out: Path,
    *,
    checkpoint: str = "best",
    name: str = "detector",
    version: str = "1.0",
    threshold: float | None = None,
    opset: int = 18,
    photos: Path | None = None,
    data: Path | None = None,
    require_auc: float | None = None,
) -> None:
    """Refuse what `export.export_run` can't work with, as far as names and the file system tell.

    Raises `UsageError` for an argument, `FileError` for a folder or file that is not there, `AucTooLow`.
    """
    for what, value in (("name", name), ("version", version)):
        if not _NAME.fullmatch(value):
            raise UsageError(f"{what} {value!r} can't be used; letters, digits, dots, dashes and underscores can")
    check_threshold(threshold)
    if opset not in OPSETS:
        raise UsageError(f"opset {opset} can't be written; {OPSETS.start} to {OPSETS.stop - 1} can")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{shown(out)}: is a file; give a folder")
    check_run(run, checkpoint)
    check_photos(photos)
    check_photos(data)
    if require_auc is not None:
        check_auc(run, checkpoint, require_auc)


def check_recalibrate(artifacts: Path, run: Path, *, threshold: float | None = None, photos: Path | None = None) -> None:
    """Refuse what `export.recalibrate.recalibrate_artifacts` can't work with, as `check_export` does."""
    check_threshold(threshold)
    check_artifacts(artifacts)
    check_run(run)
    check_photos(photos)


def check_verify(artifacts: Path, *, photos: Path | None = None) -> None:
    """Refuse what `export.verify_artifacts` can't work with, as `check_export` does."""
    check_artifacts(artifacts)
    check_photos(photos)


def check_run(run: Path, checkpoint: str = "best") -> None:
    """Raise `FileError` unless `run` is a folder with that checkpoint in it."""
    if not run.is_dir():
        found = "is a file; give the folder of the run" if run.exists() else "no such folder; `unmask train` writes a run"
        raise FileError(f"{shown(run)}: {found}")
    path = run / f"{checkpoint}_model.pth"
    if not path.is_file():
        raise FileError(f"{shown(path)}: no such checkpoint; `unmask train` writes one")


def check_auc(run: Path, checkpoint: str, required: float) -> None:
    """Raise `AucTooLow` unless the lower end of the 95 % interval of the run's AUC on its validation photos is `required`.

    The value alone may be luck: of detectors with an AUC of 0.78, one in five shows 0.80 on 400 photos.
    """
    if checkpoint != "best":
        raise UsageError(f"--require-auc: a run reports the AUC of its best checkpoint, not that of the {checkpoint} one")
    auc = read_json(run / "metrics.json", hint="`unmask train` writes it").get("validation", {}).get("auc")
    if not auc:
        raise FileError(f"{shown(run / 'metrics.json')}: says no AUC, which --require-auc is held against")
    if not auc["low"] >= required:
        raise AucTooLow(
            f"{shown(run)}: AUC is {auc['value']:.3f} on its validation photos, 95 % between {auc['low']:.3f} and "
            f"{auc['high']:.3f}; --require-auc {required:g} asks that the lower end is at least that"
        )


def check_artifacts(artifacts: Path) -> None:
    """Raise `FileError` unless `artifacts` is a folder; whether it holds what it should is what `verify` finds out."""
    if not artifacts.is_dir():
        found = "is a file; give the folder that holds it" if artifacts.exists() else "no such folder"
        raise FileError(f"{shown(artifacts)}: {found}; `unmask export` writes artifacts")


def check_photos(folder: Path | None) -> None:
    """Raise `FileError` when a folder of photos is named and not there."""
    if folder is not None and not folder.is_dir():
        raise FileError(f"{shown(folder)}: {'is a file; give a folder of photos' if folder.exists() else 'no such folder'}")


def check_threshold(threshold: float | None) -> None:
    """Raise `UsageError` for a threshold that no probability lies on both sides of."""
    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(f"threshold is {threshold}; it must lie between 0 and 1")
