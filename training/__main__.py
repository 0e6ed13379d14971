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
from training.options import CALIBRATIONS


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_fit(commands)
    _add_faults(commands)
    _add_evaluate(commands)
    _add_recalibrate(commands)
    _add_audit(commands)
    _add_inspect(commands)
    _add_push(commands)
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
    from training.fit.fit import fit  # after the options are known to be good: torch takes seconds to import

    metrics = fit(options)
    if metrics:  # empty in all processes but the first
        from training.report.report import summary

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
    from training.fit.fault_grid import run_grid, table

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
    add = parser.add_argument
    add("--family-by", metavar="REGEX", help="what names a photo's family in its path (the sub-folder of its class folder)")
    add("--group-by", metavar="REGEX", help="what names a photo's group, such as a source or a person, in its path")
    add("--robustness", action="store_true", help="also score photos as they are re-encoded, blurred, shrunk and made noisy")
    add("--robustness-photos", type=int, default=100, metavar="N", help="of each class for --robustness (%(default)s)")
    add("--pointing-game", action="store_true", help="also try whether heatmaps find what was blended into pseudo-fakes")
    add("--pointing-photos", type=int, default=200, metavar="N", help="real ones for --pointing-game (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (%(default)s)")
    parser.set_defaults(call=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.threshold is not None and not 0 < arguments.threshold < 1:
        raise UsageError(f"--threshold is {arguments.threshold}; it must lie between 0 and 1")
    if arguments.robustness_photos < 2:
        raise UsageError(f"--robustness-photos is {arguments.robustness_photos}; give 2 or more")
    if arguments.pointing_photos < 1:
        raise UsageError(f"--pointing-photos is {arguments.pointing_photos}; give 1 or more")
    from training.evaluation.evaluate import evaluate_folder, from_checkpoint, from_onnx

    judged = from_onnx(arguments.model) if arguments.model else from_checkpoint(arguments.checkpoint)
    evaluation = evaluate_folder(
        judged,
        arguments.data,
        part=arguments.part,
        threshold=arguments.threshold,
        family_by=arguments.family_by,
        group_by=arguments.group_by,
        robustness_photos=arguments.robustness_photos if arguments.robustness else 0,
        pointing_photos=arguments.pointing_photos if arguments.pointing_game else 0,
        seed=arguments.seed,
    )
    if arguments.out is not None:
        from training.report.report import write_evaluation

        write_evaluation(arguments.out, evaluation)
    print(json.dumps(evaluation.result, indent=2))
    return 0


def _add_recalibrate(commands: Any) -> None:
    parser = commands.add_parser(
        "recalibrate",
        help="fit the calibration of a run anew, on other photos or by another method",
        description="Fit the calibration curve of a finished run anew, and with --target-fpr the threshold; its weights stay. "
        "Photos that the run was trained, tuned or is reported on are left out.",
        epilog="`python -m export recalibrate ARTIFACTS --run RUN` then takes them into artifacts made before.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--run", type=Path, required=True, metavar="RUN", help="folder that fit wrote")
    add("--data", type=Path, required=True, metavar="DIR", help="labelled photos, laid out as for fit")
    add("--part", choices=("validation", "train", "all"), default="all", help="of a divided folder (%(default)s)")
    add("--calibration", choices=CALIBRATIONS, default="isotonic", help="how raw scores become probabilities (%(default)s)")
    add("--target-fpr", type=float, metavar="RATE", help="choose the threshold that flags at most this share of the real ones")
    add("--seed", type=int, default=0, help="seed of the bootstrap (%(default)s)")
    parser.set_defaults(call=_recalibrate)


def _recalibrate(arguments: argparse.Namespace) -> int:
    if arguments.target_fpr is not None and not 0 < arguments.target_fpr < 0.5:
        raise UsageError(f"--target-fpr is {arguments.target_fpr}; it must lie above 0 and below 0.5")
    from training.fit.recalibrate import recalibrate
    from training.report.report import summary

    metrics = recalibrate(
        arguments.run,
        arguments.data,
        method=arguments.calibration,
        target_fpr=arguments.target_fpr,
        part=arguments.part,
        seed=arguments.seed,
    )
    print(metrics["calibration"]["note"])
    print(summary(metrics, arguments.run))
    return 0


def _add_audit(commands: Any) -> None:
    parser = commands.add_parser(
        "audit",
        help="find duplicates, leaks, unreadable files and shortcuts in a data folder",
        description="Report duplicates, leaks between Train and Validation, unreadable files and shortcuts. Exits with 1 "
        "where there are leaks; all else is a warning.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="labelled photos, laid out as for fit")
    parser.add_argument("--group-by", metavar="REGEX", help="photos whose path matches alike belong together, as for fit")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write audit.json and audit.txt there")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(call=_audit)


def _audit(arguments: argparse.Namespace) -> int:
    from training.audit.audit import audit_folder

    found = audit_folder(arguments.directory, group_by=arguments.group_by, out=arguments.out, progress=True)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if arguments.json else found.text())
    return 1 if found.leaks or found.leaking_groups else 0


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
    from training.models.inspection import describe

    print(json.dumps(describe(arguments.checkpoint), indent=2))
    return 0


def _add_push(commands: Any) -> None:
    parser = commands.add_parser(
        "push",
        help="push a finished run to the Hugging Face hub",
        description="Push weights, calibration, metrics and the model card of a run to a repository of the Hugging Face hub, "
        "in one commit; the token is HF_TOKEN's or that of `hf auth login`.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder that fit wrote")
    parser.add_argument("repository", metavar="ORG/NAME", help="made when it is not there")
    parser.add_argument("--public", action="store_true", help="make a new repository public (private)")
    parser.add_argument("--allow-faulty", action="store_true", help="push a run with injected faults all the same")
    parser.set_defaults(call=_push)


def _push(arguments: argparse.Namespace) -> int:
    from training.report.push import push

    print(push(arguments.run, arguments.repository, private=not arguments.public, allow_faulty=arguments.allow_faulty))
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
