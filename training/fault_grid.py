"""The fault grid: the same brief training with each fault injected, held against the clean one."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from detector.errors import UsageError
from detector.files import read_json, write_json
from training.fit.fit import fit
from training.fit.run_folder import LAST
from training.models.checkpoint import load_checkpoint
from training.options import FitOptions
from training.report.plots import BLUE, ORANGE, Plot, render

CLEAN = "clean"
GRID: dict[str, dict[str, Any]] = {
    CLEAN: {},
    "label_noise 10 %": {"faulty_mode": "label_noise", "label_noise_frac": 0.1},
    "label_noise 30 %": {"faulty_mode": "label_noise", "label_noise_frac": 0.3},
    "input_noise 0.1": {"faulty_mode": "input_noise", "input_noise_std": 0.1},
    "input_noise 0.3": {"faulty_mode": "input_noise", "input_noise_std": 0.3},
    "shuffle_labels": {"faulty_mode": "shuffle_labels"},
    "wrong_loss": {"faulty_mode": "wrong_loss"},
    "random_weight_reset": {"faulty_mode": "random_weight_reset"},
    "zero_grad_every 2": {"zero_grad_every_n": 2},
}
MEASURES = {"auc": "AUC", "ece_raw": "calibration error (ECE) before calibration", "ece": "calibration error (ECE) after"}


def run_grid(options: FitOptions) -> list[dict[str, Any]]:
    """Train `GRID` with everything else as in `options`, one run in a folder each under `options.out`.

    Returns a row for each: its name, its faults, and value and 95 % interval of each of `MEASURES` on the validation photos.
    `faults.json`, `auc.png` and `calibration.png` are written once all are there. A run that is finished is not trained again,
    so the same command goes on where it was stopped.
    Raises `UsageError` when the options inject a fault of their own, or when runs of other options are in the folder.
    """
    if options.faulty_mode or options.zero_grad_every_n:
        raise UsageError("faults trains every fault in turn; leave --faulty_mode and --zero_grad_every_n out")
    rows = []
    for number, (name, faults) in enumerate(GRID.items(), start=1):
        print(f"{number}/{len(GRID)} {name}", file=sys.stderr)
        out = options.out / name.replace(" %", "").replace(" ", "_")
        cache = options.cache_dir or options.out / "cache"
        metrics = _trained(replace(options, **faults, out=out, cache_dir=cache, resume=False, overwrite=False))
        measured = {key: metrics["validation"][key] for key in MEASURES}
        rows.append({"name": name, "faults": metrics["faults"] or {}, **measured})
    write_json(options.out / "faults.json", rows)
    for file, keys in (("auc", ["auc"]), ("calibration", ["ece_raw", "ece"])):
        (options.out / f"{file}.png").write_bytes(render(_against_clean(rows, keys)).light)
    return rows


def _trained(options: FitOptions) -> dict[str, Any]:
    """The metrics of a run, trained now unless it is there already."""
    report = options.out / "metrics.json"
    if report.is_file():
        metrics = read_json(report)
        if metrics["arguments"] != options.recorded():
            raise UsageError(f"{options.out}: was trained with other options; give the grid another folder with --out")
        return metrics
    started = (options.out / LAST).is_file() and load_checkpoint(options.out / LAST).arguments == options.recorded()
    return fit(replace(options, resume=started, overwrite=not started))


def table(rows: list[dict[str, Any]]) -> str:
    """The grid as text, for a terminal."""
    wide = max(len(row["name"]) for row in rows)
    lines = [f"{'':{wide}}  {'AUC':20}  {'ECE raw':20}  ECE calibrated"]
    for row in rows:
        cells = ("{value:.3f} ({low:.3f}–{high:.3f})".format(**row[key]) for key in MEASURES)
        lines.append(f"{row['name']:{wide}}  " + "  ".join(cells))
    return "\n".join(lines)


def _against_clean(rows: list[dict[str, Any]], keys: list[str]) -> Plot:
    """A dot and its interval for each run, with a line where the clean one is."""

    def draw(axes: Axes) -> None:
        places = np.arange(len(rows))[::-1]
        for key, colour, lift in zip(keys, (BLUE, ORANGE), (0.12, -0.12), strict=False):
            shift = lift if len(keys) > 1 else 0
            values = np.array([[row[key][part] for part in ("value", "low", "high")] for row in rows])
            reach = np.abs(values[:, 1:].T - values[:, 0])
            axes.errorbar(
                values[:, 0], places + shift, xerr=reach, fmt="o", color=colour, markersize=4, elinewidth=1, label=key
            )
            axes.axvline(values[0, 0], color=colour, linestyle="--", linewidth=1)
        axes.set_yticks(places, [row["name"] for row in rows])
        axes.set_xlabel("AUC" if keys == ["auc"] else "calibration error (ECE)")
        axes.grid(visible=False, axis="y")
        if len(keys) > 1:
            handles, _ = axes.get_legend_handles_labels()
            axes.legend(handles, ["raw", "calibrated"], loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)

    return draw
