"""The run folder: what lies in it, who may write there, and whether a run can go on in it."""

from __future__ import annotations

import shutil
from pathlib import Path

from detector.errors import UsageError
from training.models.checkpoint import Checkpoint
from training.options import FitOptions
from training.report.card import CARD

LAST = "last.pth"
WRITTEN = (
    "best_model.pth",
    "final_model.pth",
    LAST,
    "calibrator.joblib",
    "calibration.json",
    "metrics.json",
    "scores.csv",
    "report",
    CARD,
    "tensorboard",
)


def claim(options: FitOptions) -> None:
    """Make the run folder, or refuse one that holds something."""
    out = options.out
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; give a folder")
    there = sorted(e.name for e in out.iterdir() if e.name != "cache") if out.is_dir() else []
    if there and not (options.resume or options.overwrite):
        what = (
            "a run already; --resume goes on with it, --overwrite replaces it"
            if set(there) & set(WRITTEN)
            else (f"{', '.join(there[:5])}; give a folder of its own")
        )
        raise UsageError(f"--out {out}: holds {what}")
    out.mkdir(parents=True, exist_ok=True)


def require_same(checkpoint: Checkpoint, options: FitOptions, fingerprint: str) -> None:
    """Refuse to go on with another run than the checkpoint's; where its photos lie is of no matter."""
    then, now = ({k: v for k, v in values.items() if k != "data"} for values in (checkpoint.arguments, options.recorded()))
    differing = [f"{k} was {then.get(k)!r} and is {now.get(k)!r}" for k in sorted({*then, *now}) if then.get(k) != now.get(k)]
    if checkpoint.fingerprint != fingerprint:
        differing.append("the photos are not the same")
    if differing:
        raise UsageError(f"--resume: this is not the run in {options.out}: {'; '.join(differing)}")


def clear(out: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for path in (out / name for name in WRITTEN):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
