"""Ensembles: finished runs averaged into one network, where no one of them has seen what the others are judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from detector.errors import UsageError
from training.calibration.methods import NONE
from training.models.build import ModelConfig
from training.models.checkpoint import BEST, Checkpoint, load_checkpoint
from training.models.networks import DetectorNet, EnsembleNet
from training.options import FitOptions
from training.presets import ENSEMBLE

_PREPARATION = ("size", "resize", "interpolation", "color", "equalise")
_DIVISION = ("tune_fraction", "calibrate_fraction", "cross_fit", "folds", "split_seed", "group_by")
_MEANINGLESS = ("fold", "resume", "weights", "faulty_mode", "zero_grad_every_n")
_DEFAULT = FitOptions(Path())


@dataclass(frozen=True)
class Member:
    """A finished run and its best checkpoint."""

    run: Path
    checkpoint: Checkpoint

    def argument(self, name: str) -> Any:
        """An option that it was trained with."""
        return self.checkpoint.arguments.get(name, getattr(_DEFAULT, name))

    @property
    def held_out(self) -> bool:
        """Whether it has photos for a curve, a threshold or a band."""
        return self.argument("calibration") != NONE or any(self.argument(name) for name in ("target_fpr", "abstain"))

    @property
    def terms(self) -> dict[str, Any]:
        """What members must have in common: how photos are prepared, which they are, and how they were divided."""
        spec = self.checkpoint.image_spec.to_dict()
        asked = {name: self.argument(name) for name in (*_PREPARATION, *_DIVISION) if name not in spec}
        if self.argument("cross_fit"):
            asked["tuning part"] = self.argument("schedule") != "cosine"
        return {**spec, **asked, "calibration part": self.held_out, "photos": self.checkpoint.fingerprint[:12]}


def read_members(runs: Sequence[Path], out: Path) -> list[Member]:
    """The members in these run folders, for an ensemble in `out`.

    Raises `FileError` for one without a checkpoint, `UsageError` saying what differs where they can't be averaged, or
    where one was trained with a fault.
    """
    folders = [run.resolve() for run in runs]
    if len(folders) < 2 or len(set(folders)) < len(folders):
        raise UsageError("--members: give two runs or more, each once")
    if out.resolve() in folders:
        raise UsageError(f"--out {out}: is one of the members; give a folder of its own")
    members = [Member(run, load_checkpoint(run / BEST)) for run in runs]
    problems = [f"{m.run} was trained with faults on purpose" for m in members if m.checkpoint.faults]
    problems += _fold_problems(members)
    first = members[0]
    for other in members[1:]:
        problems += [
            f"{name} is {other.terms[name]!r} in {other.run} and {value!r} in {first.run}"
            for name, value in first.terms.items()
            if other.terms[name] != value
        ]
    if problems:
        raise UsageError(
            f"--members: {'; '.join(problems)}; an ensemble's runs share their photos, how these are prepared and how they "
            "are divided, so that none of them has seen what it is calibrated and judged on"
        )
    return members


def _fold_problems(members: Sequence[Member]) -> list[str]:
    folds = members[0].argument("folds")
    left = {fold: len(unseeing) for fold, unseeing in by_fold(members).items()}
    if folds is None or (set(left) == set(range(1, folds + 1)) and len(set(left.values())) == 1):
        return []
    found = ", ".join(f"{count} without fold {fold}" for fold, count in sorted(left.items()))
    return [f"each of the {folds} folds must be left aside by equally many of them; there are {found}"]


def agreed_options(options: FitOptions, members: Sequence[Member]) -> FitOptions:
    """`options` with photos prepared and divided as for the members.

    Raises `UsageError` for an option that is about training, or that asks for something else than was done for the members.
    """
    if given := [name for name in _MEANINGLESS if getattr(options, name)]:
        raise UsageError(f"--{given[0].replace('_', '-')}: an ensemble is not trained; leave it out")
    first = members[0]
    if options.holds_out != first.held_out:
        raise UsageError(
            "--calibration: the members left photos aside for it, so the ensemble needs it too"
            if first.held_out
            else "--calibration: the members were trained with `none` and have seen every photo that a curve or a threshold "
            "could be fitted on; give --calibration none here too, or train them with one"
        )
    spec = first.checkpoint.image_spec.to_dict()
    theirs = {name: spec.get(name, first.argument(name)) for name in (*_PREPARATION, *_DIVISION)}
    problems = [
        f"--{name.replace('_', '-')} is {asked!r} and was {value!r} for the members; leave it out"
        for name, value in theirs.items()
        if (asked := getattr(options, name)) not in (value, getattr(_DEFAULT, name))
    ]
    if problems:
        raise UsageError("; ".join(problems))
    theirs["cross_fit"] = theirs["cross_fit"] or 0
    if theirs["cross_fit"] and options.mirror:
        raise UsageError(
            "--mirror: the members are cross-fitted, and scored no mirror images of their photos for the calibration; "
            "leave it out, or train them with --folds"
        )
    return replace(options, **theirs, schedule=first.argument("schedule"))  # which decides whether there is a tuning part


def require_unseen(members: Sequence[Member], fingerprint: str) -> None:
    """Raise `UsageError` unless `fingerprint` is that of the photos the members were trained on."""
    if fingerprint != members[0].checkpoint.fingerprint:
        raise UsageError(
            "--data: these are not the photos that the members were trained on, or not all; "
            "to judge an ensemble on others use `unmask evaluate`"
        )


def by_fold(members: Sequence[Member]) -> dict[int, list[Member]]:
    """The members that have not seen a fold, for each fold; nothing where they were not trained on folds."""
    folds: dict[int, list[Member]] = {}
    for member in members:
        if member.argument("folds"):
            folds.setdefault(member.argument("fold"), []).append(member)
    return folds


def average(members: Sequence[Member], *, mirror: bool) -> tuple[ModelConfig, DetectorNet]:
    """The members' networks with their weights as one network, in eval mode, and what it is built again from."""
    configs = tuple(m.checkpoint.model_config for m in members)
    config = ModelConfig(ENSEMBLE, hidden=(), dropout=0, members=configs, mirror=mirror)
    return config, EnsembleNet([m.checkpoint.build() for m in members], mirror=mirror).eval()
