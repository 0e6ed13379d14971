"""The run folder: what lies in it, and who may write there. Nothing here takes long to import."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detector.errors import UsageError
from detector.files import atomic_write, shown

BEST, FINAL, LAST, OPTIONS = "best_model.pth", "final_model.pth", "last.pth", "run.yaml"
FOLDS = "folds"  # of an unfinished run: the networks that score the photos for its calibration
WRITTEN = (
    OPTIONS,
    BEST,
    FINAL,
    LAST,
    FOLDS,
    "calibrator.joblib",
    "calibration.json",
    "metrics.json",
    "scores.csv",
    "report",
    "MODEL_CARD.md",
    "tensorboard",
)


def require_free(out: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Raise `UsageError` when `out` is a file, or a folder that holds something which is neither gone on with nor replaced."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {shown(out)}: is a file; give a folder")
    there = sorted(shown(e.name) for e in out.iterdir() if e.name != "cache") if out.is_dir() else []
    if there and not (resume or overwrite):
        what = (
            "a run already; --resume goes on with it, --overwrite replaces it"
            if set(there) & set(WRITTEN)
            else f"{', '.join(there[:5])}; give a folder of its own"
        )
        raise UsageError(f"--out {shown(out)}: holds {what}")


def claim(out: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Make the run folder; raises `UsageError` as `require_free` does, or when it can't be made."""
    require_free(out, resume=resume, overwrite=overwrite)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {shown(out)}: can't be made ({error.strerror})") from None


def write_options(out: Path, arguments: Mapping[str, Any]) -> None:
    """Write a run's recorded options as a file that `unmask train --config` reads."""
    import yaml

    values = {name: "none" if value == [] else value for name, value in arguments.items() if value not in (None, "")}
    if values.get("members") == "none":
        del values["members"]
    with atomic_write(out / OPTIONS) as partial:
        partial.write_bytes(
            b"# unmask train --config run.yaml --out DIR repeats this run.\n"
            + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, encoding="utf-8")
        )


def clear(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for path in (out / name for name in WRITTEN):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
