"""`unmask feedback`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from detector.errors import UsageError
from unmask.parameters import State


def feedback(
    *,
    version: str = "",
    score: float | None = None,
    label: Literal["real", "fake"] | None = None,
    file: Path | None = None,
    state: State = None,
) -> int:
    """Tell a server on this machine what scored photos turned out to be.

    Parameters
    ----------
    version
        Version of the model that scored the photo (`model.version` of its verdict).
    score
        The score that it was given (`calibrated` of its verdict).
    label
        What it turned out to be.
    file
        CSV file with the columns version, score and label, for many photos.
    """
    from serve import control
    from serve.client.feedback import read_csv
    from serve.settings import load_settings

    one = (version or None, score, label)
    if file is not None and any(each is not None for each in one):
        raise UsageError("give either --file, or --version, --score and --label")
    if file is None and any(each is None for each in one):
        raise UsageError("give --version, --score and --label of one photo, or --file with those of many")
    labels = read_csv(file) if file is not None else [{"version": version, "score": score, "label": label}]
    taken = control.feedback(state or load_settings({}).state, labels)
    print(f"{taken} labels taken" if taken != 1 else "1 label taken")
    return 0
