"""Going on with an interrupted run: its last checkpoint, and whether it is of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detector.errors import UsageError
from training.fit.run_folder import LAST
from training.models.checkpoint import Checkpoint, load_checkpoint


def interrupted(out: Path, arguments: Mapping[str, Any]) -> Checkpoint | None:
    """The last checkpoint of the run in `out`; None where no epoch was finished.

    Raises `UsageError` when it was trained with other arguments than these; where its photos lay is of no matter.
    """
    if not (out / LAST).is_file():
        return None
    checkpoint = load_checkpoint(out / LAST)
    then, now = ({k: v for k, v in values.items() if k != "data"} for values in (checkpoint.arguments, arguments))
    differing = [f"{k} was {then.get(k)!r} and is {now.get(k)!r}" for k in sorted({*then, *now}) if then.get(k) != now.get(k)]
    if differing:
        raise UsageError(f"--resume: this is not the run in {out}: {'; '.join(differing)}")
    return checkpoint


def require_same_photos(checkpoint: Checkpoint | None, out: Path, fingerprint: str) -> None:
    """Raise `UsageError` when there is a checkpoint and `fingerprint` is not that of the photos that it was trained on."""
    if checkpoint and checkpoint.fingerprint != fingerprint:
        raise UsageError(f"--resume: this is not the run in {out}: the photos are not the same")
