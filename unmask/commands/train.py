"""`unmask train` and `unmask faults`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from detector.errors import UsageError
from training.data.photos import check_layout
from training.fit.preflight import check
from training.options import FitOptions, GridOptions
from unmask.parameters import Config, Switch

_EARLIER = Parameter(group=Group("Options of the systems that Unmask replaces", sort_key=9))


@Parameter(name="*")
@dataclass(frozen=True)
class EarlierOptions:
    """Options that stand for another option's value."""

    use_amp: Annotated[Switch, _EARLIER, Parameter(name="--use_amp")] = False
    """The same as --amp auto."""
    use_mps: Annotated[Switch, _EARLIER, Parameter(name="--use_mps")] = False
    """Train on MPS where there is one, and on what --device auto takes elsewhere."""
    calibrate: Annotated[bool | None, _EARLIER, Parameter(negative="--no-calibrate")] = None
    """The same as --calibration auto; --no-calibrate is the same as --calibration none."""

    def applied(self, options: FitOptions) -> FitOptions:
        """`options` with these in them. Raises `UsageError` where one contradicts what was asked for."""
        default = FitOptions(Path())
        changes: dict[str, str] = {}
        for given, typed, name, value in (
            (self.use_amp, "--use_amp", "amp", "auto"),
            (self.use_mps, "--use_mps", "device", "mps-if-there"),
            (self.calibrate is True, "--calibrate", "calibration", "auto"),
            (self.calibrate is False, "--no-calibrate", "calibration", "none"),
        ):
            if not given:
                continue
            asked = getattr(options, name)
            if asked not in (getattr(default, name), value):
                raise UsageError(f"{typed} and --{name} {asked} contradict each other; give one of them")
            changes[name] = value
        if changes.get("device"):
            changes["device"] = _mps_if_there()
        return replace(options, **changes)  # type: ignore[arg-type]


def train(*, options: FitOptions, earlier: EarlierOptions = EarlierOptions(), config: Config = None) -> int:
    """Train, calibrate and evaluate a detector on labelled photos."""
    _before_torch()
    options = earlier.applied(options)
    check(options)
    from training.fit.fit import fit  # after the options are known to be good: torch takes seconds to import

    metrics = fit(options)
    if metrics:  # empty in all processes but the first
        from training.report.summary import summary

        print(summary(metrics, options.out))
    return 0


def faults(*, options: GridOptions, earlier: EarlierOptions = EarlierOptions(), config: Config = None) -> int:
    """Train with each kind of injected fault and compare with a clean run.

    The same command continues where it was stopped.
    """
    _before_torch()
    options = earlier.applied(options)  # type: ignore[assignment]
    check_layout(options.data, fakes_needed=options.pseudo_fakes == "none")
    from training.fault_grid import run_grid, table

    print(table(run_grid(options)))
    return 0


def _before_torch() -> None:
    # Read when torch is first imported. OpenMP's threads otherwise spin while they wait for each other, and on a machine that
    # does anything else training nearly stands still: under 5 photos a second against 16 to 27, two threads on two busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _mps_if_there() -> str:
    import torch

    if torch.backends.mps.is_available():
        return "mps"
    print("note: --use_mps: there is no MPS device here; --device auto is taken", file=sys.stderr)
    return "auto"
