"""`python -m export`: make artifacts from a run; verify artifacts made before, or give them a run's new calibration."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from detector import cli
from export.artifacts import export_run
from export.recalibrate import recalibrate_artifacts
from export.verify import verify_artifacts


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments[:1] == ["verify"]:
        return cli.run(lambda: _verify(arguments[1:]))
    if arguments[:1] == ["recalibrate"]:
        return cli.run(lambda: _recalibrate(arguments[1:]))
    return cli.run(lambda: _export(arguments))


def _export(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export",
        description="Write model.onnx, manifest.json and two TorchServe archives from a training run, proven equal to it.",
        epilog="`python -m export verify ARTIFACTS` checks hashes and parity of what was written; "
        "`python -m export recalibrate ARTIFACTS --run DIR` swaps its calibration for the one the run has now.",
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="folder that `python -m training fit` wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write; made when missing")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "final"),
        default="best",
        help="which checkpoint (default: best); final goes out uncalibrated, since the curve was fitted to best",
    )
    parser.add_argument("--name", default="detector", help="model name that TorchServe registers (default: detector)")
    parser.add_argument("--version", default="1.0", help="model version (default: 1.0)")
    parser.add_argument(
        "--threshold", type=float, help="calibrated probability from which on a photo is Fake (default: the run's, or 0.5)"
    )
    parser.add_argument("--opset", type=int, default=18, help="ONNX operator set (default: 18)")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="photos for the parity gate (default: the run's, or drawn pictures)"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=("fp32", "int8", "fp16"),
        default=["fp32"],
        help="models to write: float32 always, and beside it int8 for CPUs with VNNI or fp16 for GPUs (default: fp32)",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="labelled photos to choose and judge int8 and fp16 on (default: the run's)"
    )
    parser.add_argument("--allow-faulty", action="store_true", help="export a run with injected faults all the same")
    options = parser.parse_args(arguments)
    manifest = export_run(
        options.run,
        options.out,
        checkpoint=options.checkpoint,
        name=options.name,
        version=options.version,
        threshold=options.threshold,
        opset=options.opset,
        photos=options.photos,
        precisions=options.precision,
        data=options.data,
        allow_faulty=options.allow_faulty,
    )
    written = {"out": str(options.out), "files": manifest.files, "parity": manifest.parity}
    print(json.dumps(written | ({"precision": manifest.precision} if manifest.precision else {}), indent=2))
    return 0


def _verify(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export verify",
        description="Check the hashes of artifacts and of what their archives hold, and that ONNX and TorchScript agree.",
    )
    parser.add_argument("artifacts", type=Path, metavar="ARTIFACTS", help="folder that `python -m export` wrote")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photos to compare on (default: drawn pictures)")
    options = parser.parse_args(arguments)
    report = verify_artifacts(options.artifacts, options.photos)
    print(json.dumps(report, indent=2))
    return 0 if report["ok"] else 1


def _recalibrate(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m export recalibrate",
        description="Give artifacts the calibration curve and the threshold that their run has now; no weight is touched.",
    )
    parser.add_argument("artifacts", type=Path, metavar="ARTIFACTS", help="folder that `python -m export` wrote")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="the run it was exported from")
    parser.add_argument("--threshold", type=float, help="calibrated probability from which on a photo is Fake (the run's)")
    parser.add_argument(
        "--photos", type=Path, metavar="DIR", help="photos for the parity gate (default: the run's, or drawn pictures)"
    )
    options = parser.parse_args(arguments)
    manifest = recalibrate_artifacts(options.artifacts, options.run, threshold=options.threshold, photos=options.photos)
    changed = {"calibration": manifest.calibration_method, "threshold": manifest.threshold}
    print(json.dumps({"out": str(options.artifacts), **changed, "files": manifest.files, "parity": manifest.parity}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
