"""The cheap checks before training: what can be refused, or is worth a note, before torch is imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from detector.errors import FileError, UsageError
from detector.files import shown
from training.data.packed import labels_of
from training.data.photos import CLASSES, check_layout, checked_pattern
from training.fit.run_folder import BEST, LAST, require_free
from training.models.packaged import weights_file
from training.options import HUB, FitOptions
from training.presets import PACKAGED


def check(options: FitOptions) -> None:
    """Refuse what can't be trained; say on stderr which options change nothing. Weights on the hub are fetched.

    Raises `UsageError` for folders that are not as they should be, `FileError` for a member without a checkpoint,
    `WeightsNotInstalled`, and what `fetch_weights` raises.
    """
    check_layout(options.data, fakes_needed=options.pseudo_fakes == "none")
    require_free(options.out, resume=options.resume, overwrite=options.overwrite)
    checked_pattern(options.group_by, "--group-by")
    labels_of(options.labels, CLASSES)
    for folder in (options.cache_dir, options.out):
        _require_place(folder)
    for run in options.members:
        require_file(run / BEST, "`unmask train` writes it into a run folder")
    if os.environ.get("RANK", "0") == "0":  # of the processes that accelerate launched one speaks
        for note in notes(options):
            print(f"note: {note}", file=sys.stderr)
        if options.weights and options.weights.startswith(HUB):
            from training.models.hub import fetch_weights

            fetch_weights(options.weights)
        elif options.pretrained and not options.weights and not options.members:
            _require_pretrained(options.model)


def _require_pretrained(model: str) -> None:
    if model in PACKAGED:
        weights_file(model)
        return
    from training.models.hub import require_weights

    require_weights(model)


def require_file(path: Path, hint: str) -> None:
    """Raise `FileError` unless there is such a file; hint: what writes one, in a few words."""
    if not path.is_file():
        raise FileError(f"{shown(path)}: no such file; {hint}")


def notes(options: FitOptions) -> list[str]:
    """What was asked for and changes nothing, a sentence each."""
    default = FitOptions(Path())
    found = []
    if options.resume and not (options.out / LAST).is_file():
        found.append(f"--resume: {shown(options.out)} holds no finished epoch; training starts from the beginning")
    for name, mode in (("label_noise_frac", "label_noise"), ("input_noise_std", "input_noise")):
        if getattr(options, name) != getattr(default, name) and options.faulty_mode != mode:
            found.append(f"--{name.replace('_', '-')} changes nothing without --faulty-mode {mode}")
    if options.faulty_mode == "random_weight_reset" and options.epochs == 1:
        found.append("random_weight_reset resets a layer before each epoch but the first, and there is one epoch")
    for name in ("patience", "lr_patience"):
        if options.schedule == "cosine" and getattr(options, name) != getattr(default, name):
            found.append(f"--{name.replace('_', '-')} changes nothing with --schedule cosine")
    idle = ("epochs", "lr", "schedule", "augment", "crop", "mixup") if options.members else ()
    for name in idle:
        if getattr(options, name) != getattr(default, name):
            found.append(f"--{name} changes nothing for an ensemble, which is not trained")
    return found


def _require_place(folder: Path | None) -> None:
    """Raise `UsageError` when a folder can't be made because a file stands in its way."""
    while folder is not None and not folder.exists() and folder.parent != folder:
        folder = folder.parent
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{shown(folder)}: is a file, and a folder is to be made there")
