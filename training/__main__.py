"""`python -m training`: train a detector, judge one, say what a checkpoint is, or draw the demo set."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from detector import cli
from detector.errors import UsageError


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_fit(commands)
    _add_faults(commands)
    _add_evaluate(commands)
    _add_inspect(commands)
    _add_demo_data(commands)
    arguments = parser.parse_args(argv)
    return cli.run(lambda: int(arguments.call(arguments)))


def _add_fit(commands: Any) -> None:
    from training.flags import add_fit_arguments

    parser = commands.add_parser(
        "fit",
        help="train, calibrate and evaluate a detector",
        description="Train a detector on labelled photos, calibrate it, and write a run folder with a report.",
        allow_abbrev=False,
    )
    add_fit_arguments(parser)
    parser.set_defaults(call=_fit)


def _fit(arguments: argparse.Namespace) -> int:
    from training.flags import options_of

    options = options_of(arguments)
    # Read when torch is first imported. OpenMP's threads otherwise spin while they wait for each other, and on a machine that
    # does anything else training nearly stands still: under 5 photos a second against 16 to 27, two threads on two busy cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from training.fit import fit  # after the options are known to be good: torch takes seconds to import

    metrics = fit(options)
    if metrics:  # empty in all processes but the first
        from training.report import summary

        print(summary(metrics, options.out))
    return 0


def _add_faults(commands: Any) -> None:
    from training.flags import add_fit_arguments

    parser = commands.add_parser(
        "faults",
        help="train briefly with each kind of fault injected, and hold the results against a clean run",
        description="Train the grid of faults, one run in a folder each, and plot AUC and calibration error against clean. "
        "Takes the flags of fit; the same command goes on where it was stopped.",
        allow_abbrev=False,
    )
    add_fit_arguments(parser)
    parser.set_defaults(call=_faults, out=Path("faults"), epochs=4)


def _faults(arguments: argparse.Namespace) -> int:
    from training.flags import options_of

    options = options_of(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from training.fault_grid import run_grid, table

    print(table(run_grid(options)))
    return 0


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="judge a checkpoint or an exported model on labelled photos",
        description="Print how a checkpoint or a model.onnx does on a labelled folder, as JSON with 95 % intervals.",
        allow_abbrev=False,
    )
    judged = parser.add_mutually_exclusive_group(required=True)
    judged.add_argument("--checkpoint", type=Path, metavar="CKPT", help="a .pth; the calibration.json beside it is applied")
    judged.add_argument("--model", type=Path, metavar="ONNX", help="a model.onnx, with its manifest.json beside it")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled photos, laid out as for fit")
    parser.add_argument(
        "--part", choices=("validation", "train", "all"), default="validation", help="of a divided folder (%(default)s)"
    )
    parser.add_argument("--threshold", type=float, help="calibrated probability from which on a photo is Fake (the model's)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write evaluation.json and report/index.html there")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (%(default)s)")
    parser.set_defaults(call=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.threshold is not None and not 0 < arguments.threshold < 1:
        raise UsageError(f"--threshold is {arguments.threshold}; it must lie between 0 and 1")
    from training.evaluation import evaluate_folder, from_checkpoint, from_onnx

    judged = from_onnx(arguments.model) if arguments.model else from_checkpoint(arguments.checkpoint)
    result = evaluate_folder(
        judged,
        arguments.data,
        part=arguments.part,
        threshold=arguments.threshold,
        out=arguments.out,
        seed=arguments.seed,
    )
    print(json.dumps(result, indent=2))
    return 0


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        help="say what a checkpoint is, as JSON, without running code from it",
        description="Print a checkpoint's model, image spec, arguments and metrics as JSON; no code in the file is run.",
        allow_abbrev=False,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="best_model.pth, final_model.pth or last.pth")
    parser.set_defaults(call=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    from training.inspection import describe

    print(json.dumps(describe(arguments.checkpoint), indent=2))
    return 0


def _add_demo_data(commands: Any) -> None:
    parser = commands.add_parser(
        "demo-data",
        help="draw the embedded demo set",
        description="Draw labelled portraits, photographed and forged, with code alone.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="where Train/ and Validation/ are written")
    parser.add_argument("--count", type=int, default=None, help="photos in all")
    parser.add_argument("--size", type=int, default=None, help="height and width in pixels")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same photos (%(default)s)")
    parser.set_defaults(call=_demo_data)


def _demo_data(arguments: argparse.Namespace) -> int:
    from training.demo.dataset import generate

    sizes = {name: value for name in ("count", "size") if (value := getattr(arguments, name)) is not None}
    generate(arguments.directory, seed=arguments.seed, progress=True, **sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
